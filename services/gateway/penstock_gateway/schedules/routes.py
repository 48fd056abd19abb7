"""`/v1/schedules`: cron schedules of pipelines."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from penstock_contracts.api import ScheduleBody, ScheduleList
from penstock_contracts.commands import Schedule
from penstock_core import ids
from penstock_core.access import Permission
from penstock_gateway.errors import UnprocessableError
from penstock_gateway.http.bodies import JsonRoute
from penstock_gateway.http.parameters import feature, requires
from penstock_gateway.http.principal import By
from penstock_gateway.http.responses import BODY, COMMON, problems
from penstock_gateway.schedules.schedules import Schedules as ScheduleFeature

router = APIRouter(prefix="/v1/schedules", tags=["schedules"], route_class=JsonRoute, responses=COMMON)

Name = Annotated[str, Path(description="name of the schedule")]
Schedules = Annotated[ScheduleFeature, feature(ScheduleFeature)]

_READ = [requires(Permission.SCHEDULES_READ)]
_WRITE = [requires(Permission.SCHEDULES_WRITE)]


@router.get("", summary="List schedules", dependencies=_READ)
async def list_schedules(schedules: Schedules) -> ScheduleList:
    """All schedules by name."""
    return await schedules.list()


@router.get("/{name}", summary="Get a schedule", dependencies=_READ, responses=problems(404))
async def read_schedule(schedules: Schedules, name: Name) -> Schedule:
    """The schedule as it is stored."""
    return await schedules.get(name)


@router.put("/{name}", summary="Create or replace a schedule", dependencies=_WRITE, responses=problems(404, *BODY))
async def put_schedule(schedules: Schedules, name: Name, by: By, body: ScheduleBody) -> Schedule:
    """Validated like a run: the pipeline, its version and the inputs must fit now."""
    ids.check_name(name, "schedule")
    if body.name not in (None, name):
        message = f"is {body.name[:100]!r} in the body and {name!r} in the path"
        raise UnprocessableError(
            "The name in the body differs from the name in the path", f"name {message}", errors=[("name", message)]
        )
    return await schedules.apply(Schedule.model_validate(body.model_dump() | {"name": name, "owner": by}))


@router.delete("/{name}", status_code=204, summary="Delete a schedule", dependencies=_WRITE, responses=problems(404))
async def delete_schedule(schedules: Schedules, name: Name) -> None:
    """Runs that it started continue."""
    await schedules.delete(name)
