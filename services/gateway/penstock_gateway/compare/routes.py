"""`/v1/compare`: differences between runs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from penstock_contracts.tracking import Comparison
from penstock_core.access import Permission
from penstock_gateway.compare.comparison import RunComparison
from penstock_gateway.http.parameters import feature, requires
from penstock_gateway.http.responses import COMMON, json_response, problems

router = APIRouter(prefix="/v1/compare", tags=["runs"], responses=COMMON)


@router.get(
    "",
    summary="Compare runs",
    dependencies=[requires(Permission.RUNS_READ)],
    response_model=Comparison,
    responses=problems(404),
)
async def compare_runs(
    comparison: Annotated[RunComparison, feature(RunComparison)],
    runs: Annotated[
        str,
        Query(
            max_length=3000,
            description="2 to 20 run IDs, separated by commas",
            json_schema_extra={"pattern": "^[A-Za-z0-9_-]{1,100}(,[A-Za-z0-9_-]{1,100}){1,19}$"},
        ),
    ],
    all: Annotated[bool, Query(description="include rows without a difference")] = False,
) -> Response:
    """Inputs, parameters, tags, last metrics, outputs by digest, code, environment, Git commit and durations.

    Of a mapped step, its first 100 items are compared.
    """
    run_ids = [run_id.strip() for run_id in runs.split(",") if run_id.strip()]
    return json_response(await comparison.compare(run_ids, everything=all), headers={"cache-control": "no-store"})
