"""`/v1/environments`: build the environments that pipelines declare."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from penstock_contracts.environments import DeclarationBody, EnvironmentView, LockView
from penstock_core.access import Permission
from penstock_gateway.environments.environments import Environments
from penstock_gateway.http.bodies import JsonRoute
from penstock_gateway.http.parameters import Sha256, feature, requires
from penstock_gateway.http.principal import acting
from penstock_gateway.http.responses import BODY, COMMON, problems

router = APIRouter(prefix="/v1/environments", tags=["versions"], route_class=JsonRoute, responses=COMMON)

Service = Annotated[Environments, feature(Environments)]


@router.post(
    "",
    status_code=202,
    summary="Build an environment",
    dependencies=[requires(Permission.VERSIONS_CREATE)],
    responses={200: {"model": EnvironmentView, "description": "It was built or requested before"}, **problems(*BODY)},
)
async def build_environment(
    service: Service, request: Request, body: DeclarationBody, response: Response
) -> EnvironmentView:
    """Resolves a declaration to exact versions with hashes, and installs them. Equal declarations share one build."""
    view, new = await service.request(body, by=str(acting(request)))
    response.status_code = 202 if new else 200
    return view


@router.get(
    "/locks/{sha256}",
    summary="Get the lock of an environment",
    dependencies=[requires(Permission.VERSIONS_READ)],
    responses=problems(404),
)
async def read_lock(service: Service, sha256: Sha256) -> LockView:
    """A requirements file with hashes, by its SHA-256; pip and uv can install it."""
    return await service.lock(sha256)


@router.get(
    "/{sha256}",
    summary="Get the build of an environment",
    dependencies=[requires(Permission.VERSIONS_READ)],
    responses=problems(404),
)
async def read_environment(
    service: Service,
    sha256: Sha256,
    after: Annotated[int, Query(ge=0, lt=2**53, description="`after` of an earlier answer: only later lines")] = 0,
    wait: Annotated[
        float, Query(ge=0, le=30, description="seconds to wait for further lines or for the end of the build")
    ] = 0,
) -> EnvironmentView:
    """The latest build of a declaration, by its SHA-256, with lines of its log."""
    return await service.read(sha256, after, wait)
