"""`/v1/retention`: what is kept and for how long. `/v1/admin`: collections, and runs put back into the log."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from penstock_contracts.retention import ArchiveAfterBody, CollectBody, RestoreBody, SetPolicy
from penstock_gateway.http import bodies
from penstock_gateway.http.common import RunId, json, service
from penstock_gateway.http.docs import describe

router = APIRouter(tags=["retention"])

Name = Annotated[str, Path(description="name of a policy")]


@router.get("/v1/retention", summary="Read what is kept", openapi_extra=describe(the_settings_200="RetentionSettings"))
async def read_retention(request: Request) -> Response:
    """The policies by name, and when runs move from the log to the archive. Without a policy nothing is deleted."""
    return json((await service(request).retention.show()).model_dump())


@router.put(
    "/v1/retention/policies/{name}",
    summary="Set a policy",
    openapi_extra=describe(body="SetPolicy", the_settings_200="RetentionSettings", problems=(400, 404, 409, 413, 422)),
)
async def put_policy(request: Request, name: Name) -> Response:
    """It counts from the next round of the janitor on. One that would leave no run at all needs `confirm`."""
    body = await bodies.read(request, SetPolicy)
    return json((await service(request).retention.put(name, body)).model_dump())


@router.delete(
    "/v1/retention/policies/{name}",
    status_code=204,
    summary="Remove a policy",
    openapi_extra=describe(removed_204=None, problems=(404,)),
)
async def delete_policy(request: Request, name: Name) -> Response:
    """What only it let go is kept from now on."""
    await service(request).retention.delete(name)
    return Response(status_code=204)


@router.put(
    "/v1/retention/archive",
    summary="Set when runs are archived",
    openapi_extra=describe(body="ArchiveAfterBody", the_settings_200="RetentionSettings", problems=(400, 413, 422)),
)
async def put_archive(request: Request) -> Response:
    """Seconds after their end until runs move from the log to the artifact store; null: never."""
    body = await bodies.read(request, ArchiveAfterBody)
    return json((await service(request).retention.archive_after(body.after)).model_dump())


@router.post(
    "/v1/admin/gc",
    status_code=202,
    summary="Collect what is not kept",
    openapi_extra=describe(body="CollectBody", required=False, begun_202="JanitorReport", problems=(400, 413, 422)),
)
async def collect(request: Request) -> Response:
    """Delete runs by the policies, archive what is due, remove artifacts that nothing names; or tell what would go."""
    body = await bodies.read(request, CollectBody, optional=True)
    report = await service(request).retention.collect(body)
    return json(report.model_dump(), 202, {"location": f"/v1/admin/jobs/{report.id}"})


@router.post(
    "/v1/admin/restore",
    status_code=202,
    summary="Put archived runs back into the log",
    openapi_extra=describe(body="RestoreBody", required=False, begun_202="JanitorReport", problems=(400, 413, 422)),
)
async def restore(request: Request) -> Response:
    """For a log that was lost. Runs that the log has stay as they are."""
    body = await bodies.read(request, RestoreBody, optional=True)
    report = await service(request).retention.restore(body)
    return json(report.model_dump(), 202, {"location": f"/v1/admin/jobs/{report.id}"})


@router.get(
    "/v1/admin/jobs/{job}",
    summary="Read what a job of the janitor does",
    openapi_extra=describe(the_report_200="JanitorReport", problems=(404,)),
)
async def read_job(request: Request, job: Annotated[str, Path(description="id of the job")]) -> Response:
    """How far it is; its report is kept for a day."""
    return json((await service(request).retention.report(job)).model_dump(), headers={"cache-control": "no-store"})


@router.post(
    "/v1/runs/{run_id}/archive",
    status_code=202,
    summary="Archive a run now",
    openapi_extra=describe(begun_202="JanitorReport", problems=(404,)),
)
async def archive_run(request: Request, run_id: RunId) -> Response:
    """Move the facts of a run that is over from the log to the artifact store. Everything still answers for it."""
    gateway = service(request)
    await gateway.check_known(run_id)
    report = await gateway.retention.archive(run_id)
    return json(report.model_dump(), 202, {"location": f"/v1/admin/jobs/{report.id}"})


@router.delete(
    "/v1/runs/{run_id}",
    status_code=204,
    summary="Delete a run",
    openapi_extra=describe(deleted_204=None, problems=(404, 409)),
)
async def delete_run(
    request: Request,
    run_id: RunId,
    by: Annotated[str, Query(max_length=200, description="who deletes it, for people")] = "",
) -> Response:
    """A run that is over, and that no other run needs: its log, its archive, its rows.

    Artifacts that only it holds are removed by the collections that follow.
    """
    gateway = service(request)
    await gateway.check_known(run_id)
    await gateway.retention.delete_run(run_id, by)
    return Response(status_code=204)
