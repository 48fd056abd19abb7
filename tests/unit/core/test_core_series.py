"""Series: downsampling, and serialization of values."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_core.queries import series
from penstock_core.queries.series import Point

VALUES = st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=300)


@given(VALUES, st.integers(2, 60))
def test_downsampling_keeps_ends_and_extremes(values: list[float], most: int) -> None:
    kept = series.thinned(values, most)
    assert kept == sorted(set(kept))
    assert len(kept) <= max(most, 2)
    if not values:
        assert kept == []
        return
    assert kept[0] == 0
    assert kept[-1] == len(values) - 1
    known = [value for value in values if not math.isnan(value)]
    if known and most >= 5:
        found = [values[index] for index in kept if not math.isnan(values[index])]
        assert (min(found), max(found)) == (min(known), max(known))
    if len(known) < len(values) and most >= 5:
        assert any(math.isnan(values[index]) for index in kept)


@given(VALUES, st.integers(2, 60))
def test_downsampling_is_idempotent(values: list[float], most: int) -> None:
    kept = [values[index] for index in series.thinned(values, most)]
    assert series.thinned(kept, most) == list(range(len(kept)))


def test_downsampling_keeps_a_single_peak() -> None:
    values = [0.0] * 100_000
    values[61_803], values[31_415] = 9.0, -9.0
    assert {61_803, 31_415} <= set(series.thinned(values, 500))


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_values_survive_json(value: float) -> None:
    back = series.unspelled(json.loads(json.dumps(series.spelled(value), allow_nan=False)))
    assert back == value or (math.isnan(back) and math.isnan(value))


@pytest.mark.parametrize("text", ["", "NaN", "infinity", "0.5", "x" * 100])
def test_other_texts_are_not_values(text: str) -> None:
    with pytest.raises(ValueError, match="is not a value of a series"):
        series.unspelled(text)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=50))
def test_a_summary_covers_all_values_but_nan(values: list[float]) -> None:
    found = series.summary(values)
    known = [value for value in values if not math.isnan(value)]
    assert found.count == len(values)
    assert (found.low, found.high) == ((min(known), max(known)) if known else (None, None))
    assert found.last is values[-1]


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 9)), max_size=60), st.integers(1, 20))
def test_the_latest_points_are_few_and_in_order(given_points: list[tuple[str, int]], most: int) -> None:
    points = [Point(name, step, 0.0, 1.0) for name, step in given_points]
    found = series.latest(points, most)
    assert len(found) <= most
    if len(points) <= most:
        assert found == points
    elif most >= 5:
        assert {point.name: point for point in found} == {point.name: point for point in points}
