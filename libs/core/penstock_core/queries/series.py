"""Series of metrics: their limits, and how to draw a long one with few points.

A value may be NaN or infinite. JSON has neither, so they are encoded as text by `spelled`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

POINTS = 1_000_000
"""Most points of one attempt; further ones are dropped."""

NAMES = 2_000
"""Most series of one attempt; further ones are dropped."""

NAME_LIMIT = 200
"""Characters of the name of a series."""

STEP_LIMIT = 2**63 - 1
"""Largest step of a point; the smallest is its negative."""

SPECIAL = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
"""Values without a JSON number, by their text."""


Number: TypeAlias = float | Literal["nan", "inf", "-inf"]
"""A number, or the text of a non-finite one."""


class Point(NamedTuple):
    """A point: its series, its step (None if none was given), when in Unix seconds, and the value."""

    name: str
    step: int | None
    at: float
    value: float


def spelled(value: float) -> Number:
    """Encode a value for JSON."""
    return value if math.isfinite(value) else "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"


def unspelled(value: float | str) -> float:
    """Decode a value that `spelled` encoded.

    Raises:
        ValueError: it is not one.
    """
    if isinstance(value, str):
        if value not in SPECIAL:
            raise ValueError(f"{value[:20]!r} is not a value of a series")
        return SPECIAL[value]
    return float(value)


@dataclass(frozen=True, slots=True)
class Summary:
    """The summary of a series without its points. `low` and `high` are None if all values are NaN."""

    count: int
    low: float | None
    high: float | None
    last: float


def summary(values: Sequence[float]) -> Summary:
    """Summarize at least one value."""
    known = [value for value in values if not math.isnan(value)]
    return Summary(len(values), min(known, default=None), max(known, default=None), values[-1])


def thinned(values: Sequence[float], most: int) -> list[int]:
    """Return the indices, in order, of at most `most` values to draw a line through.

    These are the first, the last, and the smallest, the largest and the first NaN of each part of the series, so that
    no peak and no gap is lost.
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
    """Return all points if there are at most `most`, else the last one of each name, the latest `most`, in order."""
    given = list(points)
    if len(given) <= most:
        return given
    last = {point.name: number for number, point in enumerate(given)}
    return [given[number] for number in sorted(last.values())[-most:]]
