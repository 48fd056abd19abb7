"""`/v1/versions`: register pipeline versions and read them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from penstock_contracts import api, commands
from penstock_core import ids
from penstock_gateway.http import bodies, principal
from penstock_gateway.http.common import PipelineFilter, PipelineName, json, service
from penstock_gateway.http.docs import describe
from penstock_gateway.service import PROJECT

router = APIRouter(prefix="/v1/versions", tags=["versions"])


@router.post(
    "",
    status_code=201,
    summary="Register a version of a pipeline",
    openapi_extra=describe(
        body="RegisterBody",
        registered_201="VersionRegistered",
        an_equal_version_was_there_200="VersionRegistered",
        problems=(400, 413, 415, 422),
    ),
)
async def register(request: Request) -> Response:
    """Put the source bundle to `/v1/artifacts/{sha256}` first. Equal pipeline, code and environment: the same version.

    With `publish` the version becomes the latest published one, also if it was registered before.
    """
    body = await bodies.read(request, api.RegisterBody)
    reply = await service(request).register(body, by=str(principal.acting(request)))
    answer = {
        "project": PROJECT,
        "pipeline": body.pipeline.get("name"),
        "version": reply.version,
        "created": reply.created,
        "published": reply.published,
    }
    return json(answer, 201 if reply.created else 200)


@router.get("", summary="List versions", openapi_extra=describe(the_versions_200="VersionList", problems=(422,)))
async def list_versions(request: Request, pipeline: PipelineFilter = None) -> Response:
    """All versions, or those of one pipeline, oldest first, without their pipelines."""
    if pipeline is not None:
        ids.check_name(pipeline, "pipeline")
    versions = service(request).versions
    found = await versions.list(PROJECT, pipeline)
    published = await versions.publications(PROJECT, pipeline)
    return json({"versions": [_summary(version, published.get(version.name)) for version in found]})


@router.get(
    "/{pipeline}/{version}",
    summary="Read a version",
    openapi_extra=describe(the_version_200="VersionView", problems=(404, 422)),
)
async def read_version(
    request: Request, pipeline: PipelineName, version: Annotated[int, Path(ge=1, le=2**53)]
) -> Response:
    """A version with its pipeline."""
    found = await service(request).version(pipeline, version)
    published = await service(request).versions.published(PROJECT, pipeline)
    view = api.VersionView(**dict(found), **_publication(found, published))
    return json(view.model_dump_json().encode())


def _publication(version: commands.Version, published: commands.Publications | None) -> dict[str, Any]:
    publication = published.versions.get(version.version) if published else None
    if published is None or publication is None:
        return {"published": False, "published_at": None, "published_by": "", "latest": False}
    return {
        "published": True,
        "published_at": publication.at,
        "published_by": publication.by,
        "latest": published.latest == version.version,
    }


def _summary(version: commands.Version, published: commands.Publications | None) -> dict[str, object]:
    return {
        "project": version.project,
        "pipeline": version.name,
        "version": version.version,
        "digest": version.digest,
        "source": version.source,
        "registered_at": version.registered_at,
        **_publication(version, published),
        "git": version.git.model_dump() if version.git else None,
        "steps": len(version.pipeline.nodes),
    }
