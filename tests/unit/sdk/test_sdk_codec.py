"""JSON that keeps types: round trips, also through the JSON library of the services."""

from __future__ import annotations

import datetime
import decimal
import json
import math
import uuid
from pathlib import Path
from typing import Any, Literal, Optional

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sdk_sample_types import Color, Config, Frozen, Pair, Plain, Rights, Settings

from penstock.codec import MismatchError, NotJsonError, decode, encode

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=[]))
    | st.binary(max_size=20)
    | st.datetimes().map(lambda one: one.replace(fold=0))
    | st.dates()
    | st.timedeltas()
    | st.uuids()
    | st.sampled_from([*Color, Rights.READ, Rights.READ | Rights.WRITE])
)
hashable = st.integers() | st.text(max_size=5) | st.booleans() | st.tuples(st.integers(), st.text(max_size=3))
data = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5) | st.just("$type"), inner, max_size=4)
        | st.dictionaries(hashable, inner, max_size=3)
        | st.tuples(inner, inner)
        | st.sets(hashable, max_size=3)
        | st.frozensets(hashable, max_size=3)
        | st.builds(Config, depth=st.integers(), more=st.dictionaries(st.text(max_size=3), inner, max_size=2))
        | st.builds(Pair, st.integers(), st.lists(st.text(max_size=3), max_size=2))
    ),
    max_leaves=12,
)


def same(one: Any, other: Any) -> bool:
    """Equality that respects NaN, the sign of zero and types."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return (one == other and math.copysign(1, one) == math.copysign(1, other)) or (
            math.isnan(one) and math.isnan(other)
        )
    if isinstance(one, dict):
        return len(one) == len(other) and all(
            same(a, b) and same(one[a], other[b]) for a, b in zip(one, other, strict=True)
        )
    if isinstance(one, Config):
        return same(vars(one), vars(other))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@settings(max_examples=300, deadline=None)
@given(data)
def test_values_round_trip_through_the_services_json(value: Any) -> None:
    tree = encode(value)
    assert orjson.loads(orjson.dumps(tree)) == tree == json.loads(json.dumps(tree, allow_nan=False))
    assert same(decode(orjson.loads(orjson.dumps(tree))), value)


@pytest.mark.parametrize(
    "value",
    [
        Frozen("a", Config(3, (0.5, 1.0), Color.GREEN, {"x": {1, 2}})),
        decimal.Decimal("1.10"),
        uuid.UUID(int=5),
        1 + 2j,
        Settings(alpha=0.25, names=["a"]),
        datetime.datetime(2024, 5, 1, 12, tzinfo=datetime.UTC),
        np.float32(0.1),
        np.int8(-3),
        np.bool_(True),
        Path("a/b"),
    ],
)
def test_objects_round_trip_with_their_type(value: Any) -> None:
    tree = json.loads(json.dumps(encode(value)))
    for hint in (Any, type(value)):
        found = decode(tree, hint)
        assert type(found) is type(value)
        assert found == value


def test_dataclasses_are_readable_json() -> None:
    assert encode(Frozen("a")) == {"$type": "sdk_sample_types:Frozen", "name": "a", "inner": None}


def test_numpy_numbers_are_plain_where_numbers_are_declared() -> None:
    assert encode({"loss": np.float32(0.5), "n": np.int64(3)}, dict[str, float]) == {"loss": 0.5, "n": 3}
    assert encode(np.float64(0.1), float) == 0.1
    assert encode(np.float64(0.1)) == {"$type": "numpy", "dtype": "float64", "value": 0.1}
    assert encode(np.float64("nan"), float) == {"$type": "float", "value": "nan"}


def make_cycle() -> list[Any]:
    cycle: list[Any] = []
    cycle.append(cycle)
    return cycle


class Local:
    pass


@pytest.mark.parametrize(
    "value",
    [
        Plain(1),
        make_cycle(),
        object(),
        [lambda: 1],
        np.zeros(3),
        {"a": Plain(1)},
        bytearray(b"x"),
        datetime.datetime(2000, 1, 1, fold=1),
    ],
)
def test_values_without_an_exact_form_are_rejected(value: Any) -> None:
    with pytest.raises(NotJsonError):
        encode(value)


def test_paths_are_rejected_where_files_would_be_lost() -> None:
    with pytest.raises(NotJsonError, match="path"):
        encode([Path("x")], paths=False)


def test_numbers_of_pydantic_models_that_json_does_not_have() -> None:
    found = decode(json.loads(json.dumps(encode(Settings(alpha=float("nan"))), allow_nan=False)))
    assert type(found) is Settings
    assert math.isnan(found.alpha)


@pytest.mark.parametrize(
    ("plain", "hint", "value"),
    [
        (3, float, 3.0),
        (2**60 + 1, float, 2**60 + 1),
        (3, int | float, 3),
        (None, float | None, None),
        (3, Optional[float], 3.0),  # noqa: UP045 - the old way of writing it
        ("RED", Color, Color.RED),
        ("r", Color, Color.RED),
        (2, Color, Color.GREEN),
        ("2024-05-01", datetime.date, datetime.date(2024, 5, 1)),
        ("2024-05-01T10:00", datetime.datetime | None, datetime.datetime(2024, 5, 1, 10)),
        ("a/b", Path, Path("a/b")),
        ("a/b", Path | None, Path("a/b")),
        ("a/b", Path | str, "a/b"),
        ([1, 2], tuple[int, ...], (1, 2)),
        ([1, 2, 2], set[int], {1, 2}),
        ([[1, 2]], list[tuple[int, int]], [(1, 2)]),
        ({"1": "a"}, dict[int, str], {1: "a"}),
        ({"depth": 3, "color": "GREEN"}, Config, Config(3, color=Color.GREEN)),
        ({"name": "x", "inner": {"depth": 1, "rates": [1]}}, Frozen, Frozen("x", Config(1, (1.0,)))),
        ({"left": 1, "right": []}, Pair, Pair(1, [])),
        ([1, ["a"]], Pair, Pair(1, ["a"])),
        ({"alpha": 3}, Settings, Settings(alpha=3.0)),
        ("1.5", decimal.Decimal, decimal.Decimal("1.5")),
        ("a", Literal["a", "b"], "a"),
        ([{"$type": "float", "value": "inf"}], list[float], [math.inf]),
        ({"a": 1}, Any, {"a": 1}),
    ],
)
def test_plain_json_is_converted_to_the_hint(plain: Any, hint: Any, value: Any) -> None:
    found = decode(plain, hint)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("plain", "hint"),
    [
        ("BLUE", Color),
        ({"depth": "deep"}, Config),
        ({"depth": 1, "deep": 2}, Config),
        ({}, Config),
        ("yesterday", datetime.date),
        ({"$type": "nothing"}, Any),
        ({"$type": 3}, Any),
        ({"$type": "os:system", "command": "true"}, Any),
        ({"$type": "subprocess:Popen", "args": "true"}, Any),
        ({"$type": "no_such_module_at_all:X"}, Any),
        ({"$type": "sdk_sample_types:Frozen", "name": "a"}, Any),
        ({"$type": "float"}, Any),
        ({"$type": "datetime", "value": 3}, Any),
        ({"alpha": "x"}, Settings),
        ([[1]], set[list[int]]),
    ],
)
def test_unconvertible_data_is_a_mismatch(plain: Any, hint: Any) -> None:
    with pytest.raises(MismatchError):
        decode(plain, hint)
