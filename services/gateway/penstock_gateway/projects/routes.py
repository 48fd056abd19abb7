"""`/v1/projects`: projects and their quotas."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Path, Request, Response

from penstock_contracts.projects import ArchiveProjectBody, ProjectBody, ProjectList, ProjectView
from penstock_core.access import Permission
from penstock_gateway.http.bodies import JsonRoute
from penstock_gateway.http.parameters import AUTHENTICATED, NAMED, feature, requires
from penstock_gateway.http.principal import By, granted
from penstock_gateway.http.responses import BODY, COMMON, problems
from penstock_gateway.projects.project_records import ProjectRecords

router = APIRouter(prefix="/v1/projects", tags=["access"], route_class=JsonRoute, responses=COMMON)

Records = Annotated[ProjectRecords, feature(ProjectRecords)]
Name = Annotated[str, Path(description="name of the project", json_schema_extra=NAMED)]

_ADMIN = [requires(Permission.PLATFORM_ADMIN)]


@router.get("", summary="List projects", dependencies=[AUTHENTICATED])
async def list_projects(records: Records, request: Request) -> ProjectList:
    """The projects in which the principal has a role."""
    grant = granted(request)
    return await records.list(lambda name: grant.role(name) is not None)


@router.get(
    "/{project}", summary="Get a project", dependencies=[requires(Permission.PLATFORM_READ)], responses=problems(404)
)
async def read_project(records: Records, project: Name) -> ProjectView:
    """The project with its quotas."""
    return await records.get(project)


@router.put(
    "/{project}",
    summary="Create a project, or set its quotas",
    dependencies=_ADMIN,
    responses={201: {"model": ProjectView, "description": "The project was created"}, **problems(*BODY)},
)
async def put_project(
    records: Records,
    project: Name,
    by: By,
    response: Response,
    body: Annotated[ProjectBody, Body(default_factory=ProjectBody)],
) -> ProjectView:
    """Names of pipelines, deployments and models are unique in a project only. Idempotent."""
    found, created = await records.put(project, body, by)
    response.status_code = 201 if created else 200
    return found


@router.post(
    "/{project}/archive",
    summary="Archive or unarchive a project",
    dependencies=_ADMIN,
    responses=problems(404, 409, *BODY),
)
async def archive_project(
    records: Records, project: Name, body: Annotated[ArchiveProjectBody, Body(default_factory=ArchiveProjectBody)]
) -> ProjectView:
    """An archived project can be read only: nothing runs in it. What is in it stays."""
    return await records.archive(project, archived=body.archived)
