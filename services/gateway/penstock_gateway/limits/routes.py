"""`/v1/limits`: how many steps may run at the same time, the holders of slots, the waiters."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request

from penstock_contracts.limits import LimitBody, LimitList, LimitView
from penstock_core.access import ROLE_PERMISSIONS, Permission
from penstock_core.limits.slot_ledger import POOL
from penstock_gateway.errors import ForbiddenError
from penstock_gateway.http.bodies import JsonRoute
from penstock_gateway.http.parameters import feature, requires
from penstock_gateway.http.principal import granted
from penstock_gateway.http.responses import BODY, COMMON, problems
from penstock_gateway.limits.limits_service import LimitsService

router = APIRouter(prefix="/v1/limits", tags=["limits"], route_class=JsonRoute, responses=COMMON)

Name = Annotated[
    str, Path(description="name of a limit; `pool:NAME` for a pool, `runs:PROJECT/PIPELINE` for the runs of a pipeline")
]
Limits = Annotated[LimitsService, feature(LimitsService)]

_READ = [requires(Permission.LIMITS_READ)]
_WRITE = [requires(Permission.LIMITS_WRITE)]


@router.get("", summary="List limits", dependencies=_READ)
async def list_limits(limits: Limits) -> LimitList:
    """All limits that are set or in use, by name."""
    return await limits.list()


@router.get("/{name:path}", summary="Get a limit", dependencies=_READ, responses=problems(404))
async def read_limit(limits: Limits, name: Name) -> LimitView:
    """The holders of its slots, and the waiters in the order in which they get slots."""
    return await limits.get(name)


@router.put("/{name:path}", summary="Set a limit", dependencies=_WRITE, responses=problems(*BODY))
async def put_limit(limits: Limits, request: Request, name: Name, body: LimitBody) -> LimitView:
    """Overrides the numbers in the pipelines, at once. Running steps keep running."""
    _check_pool(request, name)
    return await limits.set(name, body.slots)


@router.delete("/{name:path}", status_code=204, summary="Unset a limit", dependencies=_WRITE, responses=problems(404))
async def delete_limit(limits: Limits, request: Request, name: Name) -> None:
    """The numbers in the pipelines count from now on; a pool has no size."""
    _check_pool(request, name)
    await limits.unset(name)


def _check_pool(request: Request, name: str) -> None:
    """Refuse to change a pool, which all projects share, without a role in all projects."""
    role = granted(request).everywhere
    if name.startswith(POOL) and (role is None or Permission.LIMITS_WRITE not in ROLE_PERMISSIONS[role]):
        raise ForbiddenError("All projects share pools", "their size needs the role editor in all projects")
