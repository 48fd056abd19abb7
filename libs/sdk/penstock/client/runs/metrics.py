"""Series of metrics of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from penstock.client import views
from penstock_core.queries import series


class Point(NamedTuple):
    """A measurement: the training step (None where none was given), the time in Unix seconds, and the value."""

    step: int | None
    at: float
    value: float


@dataclass(frozen=True, slots=True)
class Series:
    """A metric of one attempt of a step. `min` and `max` are None where all values are NaN.

    Attributes:
        step: key of the step.
        count: number of points that were logged.
        points: in order; empty unless they were requested.
        thinned: whether `points` is a sample of `count` points: first, last, smallest and largest are included.
    """

    name: str
    step: str
    attempt: int = 1
    count: int = 0
    min: float | None = None
    max: float | None = None
    last: float = 0.0
    last_step: int | None = None
    last_at: float = 0.0
    points: tuple[Point, ...] = ()
    thinned: bool = False

    def __repr__(self) -> str:
        return f"Series({self.name!r}, {self.step!r}, {self.count} points, last={self.last!r})"


def parse_series(row: Mapping[str, Any]) -> Series:
    """Read a series from the API's JSON."""
    points = tuple(Point(step, at, series.unspelled(value)) for step, at, value in row.get("points") or ())
    known = {key: _number(row.get(key)) for key in ("min", "max", "last")}
    return views.build(Series, row, points=points, **known)


def _number(value: float | str | None) -> float | None:
    return None if value is None else series.unspelled(value)
