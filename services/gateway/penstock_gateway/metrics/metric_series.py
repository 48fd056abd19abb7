"""Series of measurements as JSON: their summaries, and the points of those that are asked for by name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from penstock_core.queries import series
from penstock_core.queries.search import InvalidQueryError
from penstock_gateway.http.problems import ProblemError
from penstock_gateway.runs.search import PATIENCE

if TYPE_CHECKING:
    from penstock_adapters.sql.series import PointRange, Series
    from penstock_gateway.service import GatewayService

SHOWN = 1_000
"""Series of an answer."""

DRAWN = 50
"""Series of an answer with points."""

_CURSOR = re.compile(r"(\d{1,18})\.(\d{1,18})\Z")


async def page(
    service: GatewayService,
    run_id: str,
    name: str | None,
    step: str | None,
    attempt: int | None,
    *,
    points: int | None = None,
    limit: int | None = None,
    after: str | None = None,
) -> dict[str, Any]:
    """The JSON of `tracking.SeriesPage`.

    Args:
        service: the gateway's.
        run_id: a run.
        name: of the series; None for the summaries of all.
        step: key of the step that measured it.
        attempt: number of the attempt; None for the last one that measured it.
        points: most points of each series.
        limit: points of a page of one series, which is whole when all pages are read.
        after: `next` of the page before.

    Raises:
        ProblemError: 404 there is no such run or series; 422 several series where one is asked for.
        InvalidQuery: the parameters contradict each other.
    """
    paged = limit is not None or after is not None
    if (points is not None or paged) and name is None:
        raise InvalidQueryError("points are those of a series: add its name")
    if points is not None and paged:
        raise InvalidQueryError(
            "give `points` for a series with few of its points, or `limit` for pages of all of them"
        )
    await service.check_known(run_id)
    place = await service.series_projector.wait_until_current(PATIENCE)
    most = SHOWN if name is None else DRAWN
    found = await service.model.read(lambda model: model.summaries(run_id, name, step, attempt, most + 1))
    if name is not None and not found:
        raise ProblemError(404, f"The run has no series {name[:100]!r}", await _names(service, run_id, step))
    if paged and len(found) > 1:
        steps = ", ".join(repr(one.key) for one in found[:20])
        raise ProblemError(422, f"Several steps have a series {name!r}", f"say which step: {steps}")
    answer: dict[str, Any] = {"run_id": run_id, "series": [], "next": None, "more": len(found) > most}
    answer["lag"] = service.series_projector.missing(place)
    for one in found[:most]:
        stretch = None
        if paged:
            stretch = await service.model.read(
                lambda model, one=one: model.points(run_id, one, _begin(after), limit or 10_000)
            )
            answer["next"] = f"{stretch.end[0]}.{stretch.end[1]}" if stretch.end else None
        elif name is not None:
            stretch = await service.model.read(lambda model, one=one: model.thinned(run_id, one, points or 500))
        answer["series"].append(_view(one, stretch, thinned=not paged))
    return answer


def _view(one: Series, stretch: PointRange | None, *, thinned: bool) -> dict[str, Any]:
    view: dict[str, Any] = {
        "name": one.name,
        "step": one.key,
        "attempt": one.attempt,
        "count": one.count,
        "min": None if one.low is None else series.spelled(one.low),
        "max": None if one.high is None else series.spelled(one.high),
        "last": series.spelled(one.last),
        "last_step": one.last_step,
        "last_at": one.last_at,
        "points": None,
        "thinned": False,
    }
    if stretch is not None:
        view["points"] = [[point.step, point.at, series.spelled(point.value)] for point in stretch.points]
        view["thinned"] = thinned and len(stretch.points) < one.count
    return view


async def _names(service: GatewayService, run_id: str, step: str | None) -> str:
    known = await service.model.read(lambda model: model.summaries(run_id, None, step, None, 20))
    names = sorted({one.name for one in known})
    return f"there are: {', '.join(map(repr, names))}" if names else "nothing was measured (yet)"


def _begin(after: str | None) -> tuple[int, int] | None:
    if after is None:
        return None
    found = _CURSOR.match(after)
    if found is None:
        raise InvalidQueryError(
            "the cursor is none that a page of a series gave: leave it out to begin with the first page"
        )
    return int(found[1]), int(found[2])
