"""Metric series of a run: summaries of all, or the points of those with one name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock_contracts.tracking import SeriesPage, SeriesView
from penstock_core.queries import series
from penstock_core.queries.search import InvalidQueryError
from penstock_gateway.errors import NotFoundError, UnprocessableError
from penstock_gateway.read_model.database import ReadModel
from penstock_gateway.read_model.projector import Projector
from penstock_gateway.runs.run_reader import RunReader
from penstock_gateway.runs.run_search import PATIENCE

if TYPE_CHECKING:
    from penstock_adapters.sql.series import PointRange, Series

SHOWN = 1_000
"""Most series in a response."""

DRAWN = 50
"""Most series in a response with points."""

_CURSOR = re.compile(r"(\d{1,18})\.(\d{1,18})\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesQuery:
    """Which series, and which of their points.

    Attributes:
        name: of the series; None for the summaries of all.
        step: key of the step that logged it.
        attempt: number of the attempt; None for the last one that logged it.
        points: most points of each series.
        limit: points of a page of one series; the pages together have all points.
        after: `next` of the previous page.
    """

    name: str | None = None
    step: str | None = None
    attempt: int | None = None
    points: int | None = None
    limit: int | None = None
    after: str | None = None

    @property
    def paged(self) -> bool:
        """Whether a page of the points of one series is requested."""
        return self.limit is not None or self.after is not None

    def check(self) -> None:
        """Raise InvalidQueryError when the parameters contradict each other."""
        if (self.points is not None or self.paged) and self.name is None:
            raise InvalidQueryError("`points`, `limit` and `after` need the name of a series")
        if self.points is not None and self.paged:
            raise InvalidQueryError("use `points` for a thinned series, or `limit` for pages of all points, not both")


class MetricSeries:
    """Reads metric series from the read model."""

    def __init__(self, reader: RunReader, read_model: ReadModel, projector: Projector) -> None:
        self._reader = reader
        self._read_model = read_model
        self._projector = projector

    async def page(self, run_id: str, query: SeriesQuery) -> SeriesPage:
        """Return the series with a name, with points, or the summaries of all.

        Raises:
            NotFoundError: the run or the series does not exist.
            UnprocessableError: several series match and one is needed.
            InvalidQueryError: the parameters contradict each other.
        """
        query.check()
        name = query.name
        await self._reader.request(run_id)
        sequence = await self._projector.wait_until_current(PATIENCE)
        most = SHOWN if name is None else DRAWN
        found = await self._read_model.read(
            lambda model: model.summaries(run_id, name, query.step, query.attempt, most + 1)
        )
        if name is not None and not found:
            raise NotFoundError(f"The run has no series {name[:100]!r}", await self._names(run_id, query.step))
        if query.paged and len(found) > 1:
            steps = ", ".join(repr(one.key) for one in found[:20])
            raise UnprocessableError(f"Several steps have a series {name!r}", f"set `step` to one of {steps}")
        following: str | None = None
        shown: list[SeriesView] = []
        after, limit = _parse_cursor(query.after), query.limit or 10_000
        for one in found[:most]:
            points = None
            if query.paged:
                points = await self._read_model.read(lambda model, one=one: model.points(run_id, one, after, limit))
                following = f"{points.end[0]}.{points.end[1]}" if points.end else None
            elif name is not None:
                points = await self._read_model.read(
                    lambda model, one=one: model.thinned(run_id, one, query.points or 500)
                )
            shown.append(_view(one, points, thinned=not query.paged))
        return SeriesPage(
            run_id=run_id,
            series=shown,
            next=following,
            more=len(found) > most,
            lag=self._projector.missing(sequence),
        )

    async def _names(self, run_id: str, step: str | None) -> str:
        known = await self._read_model.read(lambda model: model.summaries(run_id, None, step, None, 20))
        names = sorted({one.name for one in known})
        return f"it has: {', '.join(map(repr, names))}" if names else "it has no metrics (yet)"


def _view(one: Series, points: PointRange | None, *, thinned: bool) -> SeriesView:
    return SeriesView(
        name=one.name,
        step=one.key,
        attempt=one.attempt,
        count=one.count,
        min=None if one.low is None else series.spelled(one.low),
        max=None if one.high is None else series.spelled(one.high),
        last=series.spelled(one.last),
        last_step=one.last_step,
        last_at=one.last_at,
        points=None if points is None else [(at.step, at.at, series.spelled(at.value)) for at in points.points],
        thinned=points is not None and thinned and len(points.points) < one.count,
    )


def _parse_cursor(after: str | None) -> tuple[int, int] | None:
    if after is None:
        return None
    found = _CURSOR.match(after)
    if found is None:
        raise InvalidQueryError("`after` is not the `next` of a page: omit it for the first page")
    return int(found[1]), int(found[2])
