"""`/v1/schedules`: when pipelines run by themselves."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from penstock_contracts import commands
from penstock_core import ids
from penstock_gateway.http import bodies
from penstock_gateway.http.common import json, service
from penstock_gateway.http.docs import describe
from penstock_gateway.schedules import schedule_store

router = APIRouter(prefix="/v1/schedules", tags=["schedules"])

Name = Annotated[str, Path(description="name of a schedule")]


@router.get("", summary="List schedules", openapi_extra=describe(the_schedules_200="ScheduleList"))
async def list_schedules(request: Request) -> Response:
    """All schedules by name."""
    return json({"schedules": await schedule_store.list_all(service(request).schedules)})


@router.get("/{name}", summary="Read a schedule", openapi_extra=describe(the_schedule_200="Schedule", problems=(404,)))
async def read_schedule(request: Request, name: Name) -> Response:
    """One schedule."""
    return json(await schedule_store.get(service(request).schedules, name))


@router.put(
    "/{name}",
    summary="Make or replace a schedule",
    openapi_extra=describe(body="Schedule", the_schedule_200="Schedule", problems=(400, 404, 413, 415, 422)),
)
async def put_schedule(request: Request, name: Name) -> Response:
    """Checked as a run would be: the pipeline, its version and the inputs must fit now."""
    ids.check_name(name, "schedule")
    body = await bodies.read(request, commands.Schedule, name=name)
    return json(await schedule_store.put(service(request), body))


@router.delete(
    "/{name}", status_code=204, summary="Remove a schedule", openapi_extra=describe(removed_204=None, problems=(404,))
)
async def delete_schedule(request: Request, name: Name) -> Response:
    """Runs that it started go on."""
    await schedule_store.delete(service(request).schedules, name)
    return Response(status_code=204)
