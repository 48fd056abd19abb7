"""`/v1/runs/{id}/metrics`: metric series of a run."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from penstock_contracts.tracking import SeriesPage
from penstock_core import ids
from penstock_core.access import Permission
from penstock_gateway.http.parameters import STEP_KEYED, RunId, feature, requires
from penstock_gateway.http.responses import COMMON, json_response, problems
from penstock_gateway.metrics.metric_series import MetricSeries, SeriesQuery

router = APIRouter(prefix="/v1/runs", tags=["runs"], responses=COMMON)


@router.get(
    "/{run_id}/metrics",
    summary="Get the metrics of a run",
    dependencies=[requires(Permission.RUNS_READ)],
    response_model=SeriesPage,
    responses=problems(404),
)
async def read_metrics(
    metrics: Annotated[MetricSeries, feature(MetricSeries)],
    run_id: RunId,
    name: Annotated[str | None, Query(max_length=200, description="name of a series, to get its points")] = None,
    step: Annotated[
        str | None, Query(description="only of this step: its key, such as `train[3]`", json_schema_extra=STEP_KEYED)
    ] = None,
    attempt: Annotated[
        int | None, Query(ge=1, le=1_000_000, description="only of this attempt; default: the last")
    ] = None,
    points: Annotated[
        int | None, Query(ge=5, le=10_000, description="most points of a series, default 500; extremes are included")
    ] = None,
    limit: Annotated[
        int | None, Query(ge=1, le=50_000, description="page size: all points of one series, in order")
    ] = None,
    after: Annotated[str | None, Query(max_length=50, description="`next` of the previous page")] = None,
) -> Response:
    """Without a name, a summary of each series; with one, its points: thinned for a chart, or all in pages.

    Metrics of a running step appear after about 0.2 seconds.
    """
    if step is not None:
        ids.check_step_key(step)
    query = SeriesQuery(name=name, step=step, attempt=attempt, points=points, limit=limit, after=after)
    return json_response(await metrics.page(run_id, query), headers={"cache-control": "no-store"})
