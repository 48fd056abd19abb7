"""Differences between runs."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_core.queries.comparison import MISSING, SECTIONS, Row, compare, equal

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.tuples(st.sampled_from(["", "fit", "fit[2]", "fit[10]"]), st.sampled_from(["a", "b", "c1"]))
SIDES = st.dictionaries(st.sampled_from(SECTIONS), st.dictionaries(NAMES, PLAIN, max_size=4), max_size=4)


@given(SIDES, st.integers(2, 4))
def test_a_run_has_no_differences_to_itself(side: Any, count: int) -> None:
    rows = compare([side, *(copy.deepcopy(side) for _ in range(count - 1))])
    assert all(row.same for row in rows)
    assert len(rows) == sum(len(part) for part in side.values())


@given(st.lists(SIDES, min_size=2, max_size=4), st.data())
def test_the_order_of_runs_changes_only_the_order_of_values(sides: Any, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(sides))))
    rows, turned = compare(sides), compare([sides[at] for at in order])
    assert [(row.section, row.step, row.name, row.same) for row in rows] == [
        (row.section, row.step, row.name, row.same) for row in turned
    ]
    for row, other in zip(rows, turned, strict=True):
        assert all(equal(row.values[at], value) for at, value in zip(order, other.values, strict=True))


@given(st.lists(SIDES, min_size=2, max_size=4))
def test_rows_equal_in_all_runs_are_equal_in_each_pair(sides: Any) -> None:
    for row in compare(sides):
        pairs = itertools.combinations(row.values, 2)
        assert row.same == all(equal(one, other) for one, other in pairs)


@given(st.lists(SIDES, min_size=2, max_size=3), SIDES)
def test_adding_a_run_makes_no_row_equal(sides: Any, more: Any) -> None:
    different = {(row.section, row.step, row.name) for row in compare(sides) if not row.same}
    assert different <= {(row.section, row.step, row.name) for row in compare([*sides, more]) if not row.same}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1, 1.0, True),
        (1, True, False),
        (0, False, False),
        (None, MISSING, False),
        (MISSING, MISSING, True),
        (math.nan, math.nan, True),
        ([math.nan, 1], [math.nan, 1.0], True),
        ({"a": [1]}, {"a": [1.0]}, True),
        ({"a": 1}, {"a": 1, "b": None}, False),
        ("1", 1, False),
        (math.inf, -math.inf, False),
        ([1, 2], [1], False),
    ],
)
def test_equal_values(one: Any, other: Any, same: bool) -> None:
    assert equal(one, other) is equal(other, one) is same


def test_rows_are_in_the_order_of_sections_steps_and_names() -> None:
    one = {
        "metrics": {("fit[10]", "a"): 1, ("fit[9]", "a"): 1, ("", "z"): 1},
        "inputs": {("", "n"): 1},
        "non_finite": {},
    }
    other = {"metrics": {("fit[9]", "a"): 2}}
    assert compare([one, other]) == [
        Row("inputs", "", "n", (1, MISSING), False),
        Row("metrics", "", "z", (1, MISSING), False),
        Row("metrics", "fit[9]", "a", (1, 2), False),
        Row("metrics", "fit[10]", "a", (1, MISSING), False),
    ]
