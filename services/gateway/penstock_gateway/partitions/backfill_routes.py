"""`/v1/backfills`: runs of many partitions, or of past ticks."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from penstock_contracts.backfills import (
    BackfillBody,
    BackfillCancel,
    BackfillChange,
    BackfillItems,
    BackfillList,
    BackfillView,
)
from penstock_core.access import Permission
from penstock_gateway.http.bodies import JsonRoute
from penstock_gateway.http.parameters import NAMED, IdempotencyKey, check_key, feature, requires
from penstock_gateway.http.principal import By
from penstock_gateway.http.responses import BODY, COMMON, problems
from penstock_gateway.partitions.backfills_service import Backfills

router = APIRouter(prefix="/v1/backfills", tags=["backfills"], route_class=JsonRoute, responses=COMMON)

Id = Annotated[str, Path(description="id of the backfill", json_schema_extra=NAMED)]
Service = Annotated[Backfills, feature(Backfills)]

_READ = [requires(Permission.RUNS_READ)]
_START = [requires(Permission.RUNS_CREATE)]
_CANCEL = [requires(Permission.RUNS_CANCEL)]


@router.post(
    "",
    status_code=202,
    summary="Start a backfill",
    dependencies=_START,
    responses={
        200: {"description": "A dry run, or the existing backfill of the idempotency key", "model": BackfillView},
        **problems(404, 409, *BODY),
    },
)
async def start_backfill(
    backfills: Service, by: By, body: BackfillBody, response: Response, idempotency_key: IdempotencyKey = None
) -> BackfillView:
    """Runs a deployment, as it is now, for each selected partition or past tick, some of them at a time."""
    check_key(idempotency_key)
    found = await backfills.start(body, idempotency_key, by)
    response.status_code = 202 if found.created else 200
    if found.id:
        response.headers["location"] = f"/v1/backfills/{found.id}"
    return found


@router.get("", summary="List backfills", dependencies=_READ)
async def list_backfills(
    backfills: Service,
    deployment: Annotated[str | None, Query(max_length=100, description="only of this deployment")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
) -> BackfillList:
    """Backfills with their progress, newest first."""
    return await backfills.list(deployment, limit)


@router.get("/{id}", summary="Get a backfill", dependencies=_READ, responses=problems(404))
async def read_backfill(backfills: Service, id: Id) -> BackfillView:
    """The backfill with its progress."""
    return await backfills.get(id)


@router.get("/{id}/items", summary="List the items of a backfill", dependencies=_READ, responses=problems(404))
async def list_backfill_items(
    backfills: Service,
    id: Id,
    first: Annotated[int, Query(ge=0, lt=2**31, description="index of the first one; `next` of a page")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
) -> BackfillItems:
    """Its partitions or ticks, oldest first, each with the state of its latest run."""
    return await backfills.items(id, first, limit)


@router.post("/{id}/pause", summary="Pause a backfill", dependencies=_CANCEL, responses=problems(404, 409, *BODY))
async def pause_backfill(backfills: Service, id: Id, by: By, body: BackfillChange) -> BackfillView:
    """No further runs start until it is resumed; active runs continue."""
    return await backfills.pause(id, body, by)


@router.post("/{id}/resume", summary="Resume a backfill", dependencies=_START, responses=problems(404, 409, *BODY))
async def resume_backfill(backfills: Service, id: Id, by: By, body: BackfillChange) -> BackfillView:
    """Runs start again."""
    return await backfills.resume(id, body, by)


@router.post("/{id}/cancel", summary="Cancel a backfill", dependencies=_CANCEL, responses=problems(404, 409, *BODY))
async def cancel_backfill(backfills: Service, id: Id, by: By, body: BackfillCancel) -> BackfillView:
    """No further runs start; with `runs`, those that are active are cancelled."""
    return await backfills.cancel(id, body, by)


@router.post("/{id}/retry", summary="Retry a backfill", dependencies=_START, responses=problems(404, 409, *BODY))
async def retry_backfill(backfills: Service, id: Id, by: By, body: BackfillChange) -> BackfillView:
    """Items whose runs did not succeed run once more."""
    return await backfills.retry(id, body, by)
