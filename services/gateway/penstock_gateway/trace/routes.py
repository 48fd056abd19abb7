"""`/v1/trace/{id}`: what caused a run or an event, and what it caused."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from penstock_contracts.trace import Trace
from penstock_core.access import Permission
from penstock_gateway.http.parameters import feature, requires
from penstock_gateway.http.responses import COMMON, problems
from penstock_gateway.trace.traces import Traces

router = APIRouter(
    prefix="/v1/trace",
    tags=["events"],
    dependencies=[requires(Permission.RUNS_READ)],
    responses=COMMON,
)


@router.get("/{which}", summary="Trace a run or an event", responses=problems(404))
async def trace(
    traces: Annotated[Traces, feature(Traces)],
    which: Annotated[str, Path(description="ID of a run, or sequence or digest of an event")],
) -> Trace:
    """The first cause that is known, and all events and runs that followed from it."""
    return await traces.get(which)
