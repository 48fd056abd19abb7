"""`/healthz`, `/readyz` and `/v1/platform`."""

from __future__ import annotations

import pydantic
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from penstock_adapters.nats.bus import Bus
from penstock_contracts import subjects
from penstock_contracts.commands import Replica, Replicas
from penstock_core.pipeline.values import INLINE_LIMIT
from penstock_core.ports import UnavailableError
from penstock_core.version import VERSION
from penstock_gateway.http.bodies import JSON_LIMIT
from penstock_gateway.http.common import artifacts, json, service, settings
from penstock_gateway.http.docs import describe
from penstock_gateway.service import PROJECT

router = APIRouter(tags=["platform"])


@router.get(
    "/healthz",
    summary="Whether the process lives",
    openapi_extra=describe(it_lives_200="Health", token=False),
)
async def healthz() -> Response:
    """Needs no token."""
    return json({"status": "ok"})


@router.get(
    "/readyz",
    summary="Whether requests can be served",
    openapi_extra=describe(ready_200="Readiness", not_ready_503="Readiness", token=False),
)
async def readyz(request: Request) -> Response:
    """Needs no token. 503 names what is missing."""
    parts = await service(request).readiness()
    ready = all(parts.values())
    return json({"ready": ready, "parts": parts}, 200 if ready else 503)


@router.get("/v1/platform", summary="What this platform is", openapi_extra=describe(the_platform_200="Platform"))
async def platform(request: Request) -> Response:
    """Its version, its parts, its artifact store and its limits in bytes."""
    parts = await service(request).readiness()
    store = await artifacts(request).describe()
    schedulers = await _schedulers(service(request).bus)
    return json(
        {
            "version": VERSION,
            "project": PROJECT,
            "ready": all(parts.values()),
            "parts": parts,
            "store": store,
            "started_at": request.app.state.started_at,
            "schedulers": [replica.model_dump(include={"name", "shards"}) for replica in schedulers],
            "limits": {"inline": INLINE_LIMIT, "json": JSON_LIMIT, "blob": settings(request).max_blob},
        }
    )


async def _schedulers(bus: Bus) -> list[Replica]:
    """The schedulers that live, with the shards they hold; none when none answers."""
    try:
        answer = await bus.request(subjects.SCHEDULER_REPLICAS, b"{}", timeout=1.0)
        return Replicas.model_validate_json(answer.data).replicas
    except (UnavailableError, pydantic.ValidationError):
        return []


@router.post(
    "/v1/admin/rebuild",
    status_code=202,
    summary="Make the list of runs, and their series, anew from the log",
    openapi_extra=describe(begun_202="RebuildAccepted"),
)
async def rebuild(request: Request) -> Response:
    """All that can be searched is forgotten and read from the log again; `lag` in lists tells how far it is."""
    await service(request).series_projector.rebuild()
    return json({"upto": await service(request).projector.rebuild()}, 202)
