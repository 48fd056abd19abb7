"""`GET /v1/events`: stored events, and what deployments decided on each."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from penstock_contracts.deployments import EventList, ExplanationView
from penstock_core.access import Permission
from penstock_gateway.deployments.explanations import Explanations
from penstock_gateway.http.parameters import feature, requires
from penstock_gateway.http.responses import COMMON, problems

router = APIRouter(prefix="/v1/events", tags=["events"], responses=COMMON)

Service = Annotated[Explanations, feature(Explanations)]

_READ = [requires(Permission.EVENTS_READ)]


@router.get("", summary="List events", dependencies=_READ)
async def list_events(
    explanations: Service,
    type: Annotated[str, Query(max_length=300, description="a type, or a prefix such as `com.acme.*`")] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[int | None, Query(ge=0, description="only events before this sequence")] = None,
) -> EventList:
    """The stored events, newest first."""
    return await explanations.events(type, limit, before)


@router.get("/{event}", summary="Explain an event", dependencies=_READ, responses=problems(404))
async def explain_event(
    explanations: Service,
    event: Annotated[str, Path(description="digest or sequence of the event")],
    deployment: Annotated[str | None, Query(description="only of this deployment")] = None,
) -> ExplanationView:
    """What each deployment decided: the run that it started, or the part of a filter that was false."""
    return await explanations.explain(event, deployment)
