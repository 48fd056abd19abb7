"""What runs measured, from Python, and what tells them from each other.

`Client` has all of this.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote

from penstock.client import views
from penstock.client.transport import Transport
from penstock.client.views import Run
from penstock_core.queries import series

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


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """What runs have under a name, in their order, as plain data; see `Comparison`.

    Attributes:
        section: one of run, inputs, params, tags, metrics, outputs, code, environment, git, durations.
        step: key of a step; empty for the run as a whole.
        values: of a run that has nothing under this name, None; `has` tells which have something.
        same: whether all have the same.
    """

    section: str
    name: str
    step: str = ""
    values: tuple[Any, ...] = ()
    has: tuple[bool, ...] = ()
    same: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs side by side. An artifact is `{"artifact": its SHA-256}`, and of long data there is a digest.

    Attributes:
        runs: in the order that was asked for, without their steps.
        rows: what differs, or everything.
        compared: how many rows there are with those that are the same.
    """

    runs: tuple[Run, ...]
    rows: tuple[ComparisonRow, ...] = ()
    compared: int = 0


class MetricsMixin:
    """The part of `Client` that is about what runs measured, and about comparing them."""

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
        """What a run measured, by name and step: 1,000 series at most, or 50 with points.

        Of each step those of its last attempt that measured something.

        Args:
            run_id: the run.
            name: only the series of this name, with points.
            step: only those of this step, by its key.
            attempt: those of this attempt.
            points: most points of each series, 5 or more, by default 500; first, last and extremes are among them.

        Raises:
            NotFound: there is no such run or series.
        """
        query = {"name": name, "step": step, "attempt": attempt, "points": points}
        found = self.transport.json("GET", f"/v1/runs/{quote(run_id)}/metrics", query=query)
        return [parse_series(row) for row in found["series"]]

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
                yield from parse_series(row).points
            after = page.get("next")
            if after is None:
                return

    def compare(self, run_ids: Sequence[str], *, include_equal: bool = False) -> Comparison:
        """What tells runs from each other: inputs, parameters, tags, metrics, outputs, code, environment, durations.

        Args:
            run_ids: 2 to 20 runs.
            include_equal: also what is the same in all of them.

        Raises:
            NotFound: there is no such run.
            Refused: it is one run, or too many.
        """
        query = {"runs": ",".join(run_ids), "all": "true" if include_equal else None}
        found = self.transport.json("GET", "/v1/compare", query=query)
        return Comparison(
            tuple(views.build(Run, row) for row in found["runs"]),
            tuple(_difference(row) for row in found["rows"]),
            found["compared"],
        )


def _difference(row: Mapping[str, Any]) -> ComparisonRow:
    held: Sequence[dict[str, Any] | None] = row["values"]
    values = tuple(None if one is None else one["value"] for one in held)
    return views.build(ComparisonRow, row, values=values, has=tuple(one is not None for one in held))


def parse_series(row: Mapping[str, Any]) -> Series:
    """A series from the API's JSON."""
    points = tuple(Point(step, at, series.unspelled(value)) for step, at, value in row.get("points") or ())
    known = {key: _number(row.get(key)) for key in ("min", "max", "last")}
    return views.build(Series, row, points=points, **known)


def _number(value: float | str | None) -> float | None:
    return None if value is None else series.unspelled(value)
