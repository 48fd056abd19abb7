"""What runs measured, from Python: series of numbers, with few points for a chart or with all of them.

`Client` has all of this.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote

from penstock import results
from penstock.transport import Transport
from penstock_core import series

_PAGE = 20_000


class Point(NamedTuple):
    """A measurement: where in the series (None where the step did not say), when in Unix seconds, and the value."""

    step: int | None
    at: float
    value: float


@dataclass(frozen=True, slots=True)
class Series:
    """A series of measurements of one attempt of a step. `min` and `max` are None where all values are NaN.

    Attributes:
        step: key of the step.
        points: in order; empty where they were not asked for.
        thinned: whether `points` are some of `count`, among them the first, last, smallest and largest.
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


class Measured:
    """The part of `Client` that is about what runs measured."""

    transport: Transport

    def metrics(
        self,
        run_id: str,
        name: str | None = None,
        *,
        step: str | None = None,
        attempt: int | None = None,
        points: int | None = None,
    ) -> list[Series]:
        """What a run measured, by name and step; of each step its last attempt that measured something.

        Args:
            run_id: the run.
            name: only the series of this name, with points.
            step: only those of this step, by its key.
            attempt: those of this attempt.
            points: most points of each series, 500 by default; the first, the last and all extremes are among them.

        Raises:
            NotFound: there is no such run or series.
        """
        query = {"name": name, "step": step, "attempt": attempt, "points": points}
        found = self.transport.json("GET", f"/v1/runs/{quote(run_id)}/metrics", query=query)
        return [series_of(row) for row in found["series"]]

    def points(self, run_id: str, name: str, *, step: str | None = None, attempt: int | None = None) -> Iterator[Point]:
        """All points of one series, in order, read in pages while they are taken.

        Raises:
            NotFound: there is no such run or series.
            Refused: several steps have a series of this name, and none was named.
        """
        after: str | None = None
        while True:
            query = {"name": name, "step": step, "attempt": attempt, "limit": _PAGE, "after": after}
            page = self.transport.json("GET", f"/v1/runs/{quote(run_id)}/metrics", query=query)
            for row in page["series"]:
                yield from series_of(row).points
            after = page.get("next")
            if after is None:
                return


def series_of(row: Mapping[str, Any]) -> Series:
    """A series from the API's JSON."""
    points = tuple(Point(step, at, series.unspelled(value)) for step, at, value in row.get("points") or ())
    known = {key: _number(row.get(key)) for key in ("min", "max", "last")}
    return results.build(Series, row, points=points, **known)


def _number(value: float | str | None) -> float | None:
    return None if value is None else series.unspelled(value)
