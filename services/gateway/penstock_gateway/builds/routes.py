"""`/v1/builds`: build versions from Git repositories; list, follow and cancel builds."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from penstock_contracts.builds import BuildBody, BuildList, BuildView
from penstock_core.access import Permission
from penstock_gateway.builds.builds import Builds
from penstock_gateway.http.bodies import JsonRoute
from penstock_gateway.http.parameters import feature, requires
from penstock_gateway.http.principal import acting
from penstock_gateway.http.responses import BODY, COMMON, problems

router = APIRouter(prefix="/v1/builds", tags=["versions"], route_class=JsonRoute, responses=COMMON)

Service = Annotated[Builds, feature(Builds)]
BuildId = Annotated[str, Path(max_length=100, description="id of a build")]


@router.post(
    "",
    status_code=202,
    summary="Build a version from a Git repository",
    dependencies=[requires(Permission.VERSIONS_CREATE)],
    responses={200: {"model": BuildView, "description": "An equal build is in progress"}, **problems(*BODY)},
)
async def build_version(service: Service, request: Request, body: BuildBody, response: Response) -> BuildView:
    """A builder resolves the branch or tag to a commit, fetches it, compiles the pipeline and registers the version."""
    view, new = await service.request(body, by=str(acting(request)))
    response.status_code = 202 if new else 200
    return view


@router.get("", summary="List builds", dependencies=[requires(Permission.VERSIONS_READ)])
async def list_builds(service: Service, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> BuildList:
    """Builds of versions and of environments, newest first, without their logs."""
    return await service.list(limit)


@router.get(
    "/{build}",
    summary="Get a build",
    dependencies=[requires(Permission.VERSIONS_READ)],
    responses=problems(404),
)
async def read_build(
    service: Service,
    build: BuildId,
    after: Annotated[int, Query(ge=0, lt=2**53, description="`after` of an earlier answer: only later lines")] = 0,
    wait: Annotated[
        float, Query(ge=0, le=30, description="seconds to wait for further lines or for the end of the build")
    ] = 0,
) -> BuildView:
    """A build, with lines of its log."""
    return await service.read(build, after, wait)


@router.post(
    "/{build}/cancel",
    summary="Cancel a build",
    dependencies=[requires(Permission.VERSIONS_CREATE)],
    responses=problems(404, 409),
)
async def cancel_build(service: Service, request: Request, build: BuildId) -> BuildView:
    """The builder stops. A build whose version is just being registered may still publish it."""
    return await service.cancel(build, by=str(acting(request)))
