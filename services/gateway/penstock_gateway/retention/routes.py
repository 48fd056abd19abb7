"""`/v1/retention`: retention policies. `/v1/admin`: garbage collection, restore. Archive or delete one run."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Path, Response

from penstock_contracts.retention import (
    ArchiveAfterBody,
    CollectBody,
    JanitorReport,
    RestoreBody,
    RetentionSettings,
    SetPolicy,
)
from penstock_core.access import Permission
from penstock_gateway.http.bodies import JsonRoute
from penstock_gateway.http.parameters import NAMED, RunId, feature, requires
from penstock_gateway.http.principal import By
from penstock_gateway.http.responses import BODY, COMMON, problems
from penstock_gateway.retention.retention_service import RetentionService
from penstock_gateway.runs.run_reader import RunReader

router = APIRouter(tags=["retention"], route_class=JsonRoute, responses=COMMON)

Name = Annotated[str, Path(description="name of the policy", json_schema_extra=NAMED)]
Retention = Annotated[RetentionService, feature(RetentionService)]
Reader = Annotated[RunReader, feature(RunReader)]

_READ = [requires(Permission.RETENTION_READ)]
_WRITE = [requires(Permission.RETENTION_WRITE)]
_ADMIN = [requires(Permission.PLATFORM_ADMIN)]


@router.get("/v1/retention", summary="Get the retention settings", dependencies=_READ)
async def read_retention(retention: Retention) -> RetentionSettings:
    """The policies by name, and when runs are archived. Without a policy no run is deleted."""
    return await retention.show()


@router.put(
    "/v1/retention/policies/{name}",
    summary="Create or replace a retention policy",
    dependencies=_WRITE,
    responses=problems(404, 409, *BODY),
)
async def put_policy(retention: Retention, name: Name, body: SetPolicy) -> RetentionSettings:
    """Applies from the next round of the janitor. A policy that would delete all finished runs needs `confirm`."""
    return await retention.put(name, body)


@router.delete(
    "/v1/retention/policies/{name}",
    status_code=204,
    summary="Delete a retention policy",
    dependencies=_WRITE,
    responses=problems(404),
)
async def delete_policy(retention: Retention, name: Name) -> None:
    """Runs that only this policy would have deleted are retained from now on."""
    await retention.delete(name)


@router.put(
    "/v1/retention/archive", summary="Set when runs are archived", dependencies=_WRITE, responses=problems(*BODY)
)
async def put_archive(retention: Retention, body: ArchiveAfterBody) -> RetentionSettings:
    """Seconds after their end until runs move from the log to the artifact store; null: never."""
    return await retention.archive_after(body.after)


@router.post(
    "/v1/admin/gc",
    status_code=202,
    summary="Start a garbage collection",
    dependencies=_ADMIN,
    responses=problems(*BODY),
)
async def collect(
    retention: Retention, body: Annotated[CollectBody, Body(default_factory=CollectBody)], response: Response
) -> JanitorReport:
    """Deletes runs by the policies, archives runs that are due, removes unreferenced artifacts.

    A dry run reports what would be deleted.
    """
    return _started(await retention.collect(body), response)


@router.post(
    "/v1/admin/restore",
    status_code=202,
    summary="Restore archived runs into the log",
    dependencies=_ADMIN,
    responses=problems(*BODY),
)
async def restore(
    retention: Retention, body: Annotated[RestoreBody, Body(default_factory=RestoreBody)], response: Response
) -> JanitorReport:
    """For a log that was lost. Runs that exist in the log do not change."""
    return _started(await retention.restore(body), response)


@router.get("/v1/admin/jobs/{job}", summary="Get the report of a job", dependencies=_READ, responses=problems(404))
async def read_job(
    retention: Retention, job: Annotated[str, Path(description="ID of the job")], response: Response
) -> JanitorReport:
    """Progress and result of a job of the janitor; stored for a day."""
    response.headers["cache-control"] = "no-store"
    return await retention.report(job)


@router.post(
    "/v1/runs/{run_id}/archive",
    status_code=202,
    summary="Archive a run",
    dependencies=[requires(Permission.RUNS_ARCHIVE)],
    responses=problems(404),
)
async def archive_run(retention: Retention, reader: Reader, run_id: RunId, response: Response) -> JanitorReport:
    """Moves the facts of a finished run from the log to the artifact store. All operations still work for it."""
    await reader.request(run_id)
    return _started(await retention.archive(run_id), response)


@router.delete(
    "/v1/runs/{run_id}",
    status_code=204,
    summary="Delete a run",
    dependencies=[requires(Permission.RUNS_DELETE)],
    responses=problems(404, 409),
)
async def delete_run(retention: Retention, reader: Reader, by: By, run_id: RunId) -> None:
    """Deletes the log, the archive and the rows of a finished run that no other run needs.

    The next garbage collections remove its artifacts that nothing else refers to.
    """
    await reader.request(run_id)
    await retention.delete_run(run_id, by)


def _started(report: JanitorReport, response: Response) -> JanitorReport:
    response.headers["location"] = f"/v1/admin/jobs/{report.id}"
    return report
