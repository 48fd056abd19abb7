"""Series of measurements: what one attempt may log, and how a long one is drawn with few points.

A value may be NaN or infinite. JSON has neither, so they travel as the texts that `spelled` gives.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

POINTS = 1_000_000
"""Measurements that are kept of one attempt; those that come after it are left out."""

NAMES = 2_000
"""Series that are kept of one attempt; those that begin after it are left out."""

NAME_LIMIT = 200
"""Characters of the name of a series."""

STEP_LIMIT = 2**63 - 1
"""Largest step of a point; the smallest is its negative."""

SPECIAL = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
"""Values that JSON has no numbers for, by how they are spelled."""


class Point(NamedTuple):
    """A measurement: its series, where in it (None where the step did not say), when in Unix seconds, and the value."""

    name: str
    step: int | None
    at: float
    value: float


def spelled(value: float) -> float | str:
    """The value as JSON has it."""
    return value if math.isfinite(value) else "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"


def unspelled(value: float | str) -> float:
    """The value that `spelled` made this of.

    Raises:
        ValueError: it is none of them.
    """
    if isinstance(value, str):
        if value not in SPECIAL:
            raise ValueError(f"{value[:20]!r} is no value of a series")
        return SPECIAL[value]
    return float(value)


@dataclass(frozen=True, slots=True)
class Summary:
    """What is known of a series without its points. `low` and `high` are None where all values are NaN."""

    count: int
    low: float | None
    high: float | None
    last: float


def summary(values: Sequence[float]) -> Summary:
    """The summary of at least one value."""
    known = [value for value in values if not math.isnan(value)]
    return Summary(len(values), min(known, default=None), max(known, default=None), values[-1])


def thinned(values: Sequence[float], most: int) -> list[int]:
    """Indices, in order, of at most `most` values that a line through all of them is drawn with.

    The first, the last, and of each part of the series its smallest, its largest and its first NaN, so that no peak,
    no gap and no bound of the whole is lost.
    """
    if len(values) <= max(most, 2):
        return list(range(len(values)))
    kept = {0, len(values) - 1}
    parts = max(1, (most - 2) // 3)
    if most >= 5:
        for part in range(parts):
            kept.update(_telling(values, range(len(values) * part // parts, len(values) * (part + 1) // parts)))
    return sorted(kept)


def _telling(values: Sequence[float], part: range) -> Iterator[int]:
    known = [index for index in part if not math.isnan(values[index])]
    if known:
        yield min(known, key=values.__getitem__)
        yield max(known, key=values.__getitem__)
    if len(known) < len(part):
        yield next(index for index in part if math.isnan(values[index]))


def latest(points: Iterable[Point], most: int) -> list[Point]:
    """All points if there are at most `most`; else the last one of each name, the latest `most` of them, in order."""
    given = list(points)
    if len(given) <= most:
        return given
    last = {point.name: number for number, point in enumerate(given)}
    return [given[number] for number in sorted(last.values())[-most:]]
