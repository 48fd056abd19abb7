"""`/v1/runs/{id}/metrics`: what a run measured."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from penstock_core import ids
from penstock_gateway.http.common import RunId, json, service
from penstock_gateway.http.docs import describe
from penstock_gateway.metrics import metric_series

router = APIRouter(prefix="/v1/runs", tags=["runs"])


@router.get(
    "/{run_id}/metrics",
    summary="Read what a run measured",
    openapi_extra=describe(the_series_200="SeriesPage", problems=(404, 422)),
)
async def read_metrics(
    request: Request,
    run_id: RunId,
    name: Annotated[str | None, Query(max_length=200, description="a series, with its points")] = None,
    step: Annotated[str | None, Query(description="only of this step: its key, such as `train[3]`")] = None,
    attempt: Annotated[int | None, Query(ge=1, le=1_000_000, description="of this attempt; default the last")] = None,
    points: Annotated[
        int | None, Query(ge=5, le=10_000, description="most points of a series, 500 by default; extremes are kept")
    ] = None,
    limit: Annotated[
        int | None, Query(ge=1, le=50_000, description="points of a page: all points of one series, in order")
    ] = None,
    after: Annotated[str | None, Query(max_length=50, description="`next` of the page before")] = None,
) -> Response:
    """Without a name, a summary of each series; with one, its points: few of them for a chart, or all in pages.

    A running step's measurements are here about a fifth of a second after they were made.
    """
    if step is not None:
        ids.check_step_key(step)
    found = await metric_series.page(
        service(request), run_id, name, step, attempt, points=points, limit=limit, after=after
    )
    return json(found, headers={"cache-control": "no-store"})
