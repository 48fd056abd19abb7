"""`/healthz`, `/readyz`, `/v1/platform` and `/v1/admin/rebuild`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Response

from penstock_contracts.api import HealthView, PlatformView, Readiness, RebuildAccepted
from penstock_core.access import Permission
from penstock_gateway.http.parameters import feature, requires
from penstock_gateway.http.principal import Project
from penstock_gateway.http.responses import COMMON
from penstock_gateway.platform.health import Health
from penstock_gateway.read_model.projector import ReadModelRebuild

router = APIRouter(tags=["platform"])

Healthy = Annotated[Health, feature(Health)]


@router.get("/healthz", summary="Liveness probe")
async def healthz() -> HealthView:
    """Needs no token."""
    return HealthView(status="ok")


@router.get("/readyz", summary="Readiness probe", responses={503: {"model": Readiness, "description": "Not ready"}})
async def readyz(health: Healthy, response: Response) -> Readiness:
    """Needs no token. 503 says which part does not answer, or that messages of a stream are lost (`integrity`)."""
    readiness = await health.readiness()
    response.status_code = 200 if readiness.ready else 503
    return readiness


@router.get(
    "/v1/platform",
    summary="Describe the platform",
    dependencies=[requires(Permission.PLATFORM_READ)],
    responses=COMMON,
)
async def platform(health: Healthy, project: Project) -> PlatformView:
    """Its version, its parts, its artifact store, its schedulers and its limits in bytes."""
    return await health.platform(project)


@router.post(
    "/v1/admin/rebuild",
    status_code=202,
    summary="Rebuild the read model",
    dependencies=[requires(Permission.PLATFORM_ADMIN)],
    responses=COMMON,
)
async def rebuild(rebuild: Annotated[ReadModelRebuild, feature(ReadModelRebuild)]) -> RebuildAccepted:
    """Drops the list of runs and the metric series and reads them from the log again; `lag` in lists shows progress."""
    return RebuildAccepted(upto=await rebuild.start())
