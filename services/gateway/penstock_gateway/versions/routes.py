"""`/v1/versions`: register pipeline versions and read them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from penstock_contracts.api import RegisterBody, VersionList, VersionRegistered, VersionView
from penstock_core.access import Permission
from penstock_gateway.http.bodies import JsonRoute
from penstock_gateway.http.parameters import PipelineFilter, PipelineName, feature, requires
from penstock_gateway.http.principal import acting
from penstock_gateway.http.responses import BODY, COMMON, problems
from penstock_gateway.versions.pipeline_versions import PipelineVersions

router = APIRouter(prefix="/v1/versions", tags=["versions"], route_class=JsonRoute, responses=COMMON)

Versions = Annotated[PipelineVersions, feature(PipelineVersions)]

_READ = [requires(Permission.VERSIONS_READ)]


@router.post(
    "",
    status_code=201,
    summary="Register a version of a pipeline",
    dependencies=[requires(Permission.VERSIONS_CREATE)],
    responses={200: {"model": VersionRegistered, "description": "An equal version existed"}, **problems(*BODY)},
)
async def register(versions: Versions, request: Request, body: RegisterBody, response: Response) -> VersionRegistered:
    """Put the source bundle to `/v1/artifacts/{sha256}` first. Equal pipeline, code and environment: the same version.

    With `publish` the version becomes the latest published one, also if it was registered before.
    """
    registered = await versions.register(body, by=str(acting(request)))
    response.status_code = 201 if registered.created else 200
    return registered


@router.get("", summary="List versions", dependencies=_READ)
async def list_versions(versions: Versions, pipeline: PipelineFilter = None) -> VersionList:
    """All versions, or those of one pipeline, oldest first, without the pipeline definitions."""
    return await versions.list(pipeline)


@router.get("/{pipeline}/{version}", summary="Get a version", dependencies=_READ, responses=problems(404))
async def read_version(
    versions: Versions, pipeline: PipelineName, version: Annotated[int, Path(ge=1, le=2**53)]
) -> VersionView:
    """A version with its pipeline definition."""
    return await versions.view(pipeline, version)
