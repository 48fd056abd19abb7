"""`/v1/compare`: what tells runs from each other."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from penstock_gateway.compare import comparison
from penstock_gateway.http.common import json, service
from penstock_gateway.http.docs import describe

router = APIRouter(prefix="/v1/compare", tags=["runs"])


@router.get("", summary="Compare runs", openapi_extra=describe(the_differences_200="Comparison", problems=(404, 422)))
async def compare_runs(
    request: Request,
    runs: Annotated[str, Query(max_length=3000, description="2 to 20 run ids, separated by commas")],
    all: Annotated[bool, Query(description="also what is the same everywhere")] = False,
) -> Response:
    """Inputs, parameters, tags, last metrics, outputs by digest, code, environment, Git commit and durations.

    Of a mapped step, its first 100 items are compared.
    """
    run_ids = [run_id.strip() for run_id in runs.split(",") if run_id.strip()]
    return json(
        await comparison.compare(service(request), run_ids, everything=all), headers={"cache-control": "no-store"}
    )
