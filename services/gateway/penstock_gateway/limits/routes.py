"""`/v1/limits`: how many steps may run at the same time, who does, and who waits."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from penstock_contracts.limits import LimitBody
from penstock_gateway.http import bodies
from penstock_gateway.http.common import json, service
from penstock_gateway.http.docs import describe

router = APIRouter(prefix="/v1/limits", tags=["limits"])

Name = Annotated[
    str, Path(description="name of a limit; `pool:NAME` for a pool, `runs:PROJECT/PIPELINE` for the runs of a pipeline")
]


@router.get("", summary="List limits", openapi_extra=describe(the_limits_200="LimitList"))
async def list_limits(request: Request) -> Response:
    """All limits that are set or in use, by name."""
    return json((await service(request).limits.list()).model_dump())


@router.get("/{name:path}", summary="Read a limit", openapi_extra=describe(the_limit_200="LimitView", problems=(404,)))
async def read_limit(request: Request, name: Name) -> Response:
    """Who holds its slots, and who waits, in the order of their turns."""
    return json((await service(request).limits.get(name)).model_dump())


@router.put(
    "/{name:path}",
    summary="Set a limit",
    openapi_extra=describe(body="LimitBody", the_limit_200="LimitView", problems=(400, 413, 415, 422)),
)
async def put_limit(request: Request, name: Name) -> Response:
    """It counts instead of what steps say, at once. What runs already goes on."""
    body = await bodies.read(request, LimitBody)
    return json((await service(request).limits.put(name, body.slots)).model_dump())


@router.delete(
    "/{name:path}",
    status_code=204,
    summary="Remove what a limit is set to",
    openapi_extra=describe(removed_204=None, problems=(404,)),
)
async def delete_limit(request: Request, name: Name) -> Response:
    """Steps say their own number from now on; a pool has no size."""
    await service(request).limits.delete(name)
    return Response(status_code=204)
