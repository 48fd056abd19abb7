"""Elements of values written by the SDK, and malformed values."""

from __future__ import annotations

import contextlib
import math
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_core.pipeline import tagged
from penstock_testkit import strategies


@pytest.mark.parametrize(
    ("data", "part", "found"),
    [
        ([1, 2], 1, 2),
        ([1, 2], -1, 2),
        ({"$type": "tuple", "items": [1, 2]}, 0, 1),
        ({"a": 1}, "a", 1),
        ({"$type": "m:Point", "x": 1}, "x", 1),
        ({"$type": "dict", "items": [["a", 1], [2, 3]]}, "a", 1),
    ],
)
def test_picking_items_and_fields(data: Any, part: int | str, found: Any) -> None:
    assert tagged.element(data, part) == found


@pytest.mark.parametrize(
    ("data", "part", "why"),
    [
        ([1], 1, "a list of 1 has no element [1]"),
        ([1], "a", "a list has no field 'a'"),
        (3, 0, "a int has no element [0]"),
        ({"a": 1}, "b", "there is no field 'b' (fields: 'a')"),
        ({"$type": "m:Color", "name": "RED"}, "name", "a Color has no field 'name'"),
        ({"$type": "dict", "items": [5, [1], "ab", [[], 1]]}, "a", "there is no field 'a' (fields: none)"),
        ({"$type": "tuple", "items": 5}, 0, "a tuple has no element [0]"),
    ],
)
def test_a_missing_item_error_lists_what_exists(data: Any, part: int | str, why: str) -> None:
    with pytest.raises(tagged.NoSuchPartError) as caught:
        tagged.element(data, part)
    assert str(caught.value) == why


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ({"$type": "float", "value": "-inf"}, -math.inf),
        ({"$type": "int", "value": "0x10"}, 16),
        ({"$type": "int", "value": "12"}, 12),
        ({"$type": "m:Color", "name": "RED"}, "RED"),
        ({"a": {"$type": "tuple", "items": [1]}}, {"a": [1]}),
        ({"$type": "int", "value": "many"}, {"$type": "int", "value": "many"}),
        ({"$type": "float", "value": 10**400}, {"$type": "float", "value": 10**400}),
        ({"$type": "float", "value": [1]}, {"$type": "float", "value": [1]}),
        ({"$type": "decimal", "value": "1.5"}, Decimal("1.5")),
        ({"$type": "timedelta", "value": "1 2 3"}, timedelta(1, 2, 3)),
        ({"$type": "numpy", "dtype": "float32", "value": {"$type": "float", "value": "inf"}}, math.inf),
    ],
)
def test_comparisons_match_python(data: Any, found: Any) -> None:
    assert tagged.plain(data) == found


_odd = strategies.json_values | st.fixed_dictionaries(
    {"$type": st.sampled_from(["tuple", "dict", "int", "float", "m:C", 5, None])},
    optional={
        "items": st.lists(st.lists(strategies.json_values, max_size=3) | strategies.json_values, max_size=3)
        | strategies.json_values,
        "value": strategies.json_values,
        "name": strategies.json_values,
        "model": strategies.json_values,
    },
)


@given(_odd, st.integers(-3, 3) | st.text(max_size=3))
def test_malformed_values_never_break_a_reader(data: Any, part: int | str) -> None:
    tagged.plain(data)
    assert len(tagged.text(data)) <= 100
    with contextlib.suppress(tagged.NoSuchPartError):
        tagged.element(data, part)


def test_a_data_class_may_have_a_field_called_model() -> None:
    data = {"$type": "m:Trained", "name": "x", "model": {"depth": 3}}
    assert tagged.element(data, "name") == "x"
    assert tagged.element(tagged.element(data, "model"), "depth") == 3
    assert tagged.element({"$type": "m:Config", "model": {"name": "y"}, "set": ["name"]}, "name") == "y"
