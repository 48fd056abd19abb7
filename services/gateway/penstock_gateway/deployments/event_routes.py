"""`GET /v1/events`: stored events, and what deployments decided on each."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from penstock_contracts.deployments import EventList, ExplanationView
from penstock_core.access import Permission
from penstock_gateway.deployments.event_tail import EventTail
from penstock_gateway.deployments.explanations import Explanations
from penstock_gateway.http.parameters import LastEventId, feature, last_event, requires
from penstock_gateway.http.responses import COMMON, content, events, problems

router = APIRouter(prefix="/v1/events", tags=["events"], responses=COMMON)

Service = Annotated[Explanations, feature(Explanations)]

_READ = [requires(Permission.EVENTS_READ)]


@router.get("", summary="List events", dependencies=_READ)
async def list_events(
    explanations: Service,
    type: Annotated[str, Query(max_length=300, description="a type, or a prefix such as `com.acme.*`")] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[int | None, Query(ge=0, lt=2**53, description="only events before this sequence")] = None,
) -> EventList:
    """The stored events, newest first."""
    return await explanations.events(type, limit, before)


@router.get(
    "/stream",
    summary="Follow events",
    dependencies=_READ,
    response_class=Response,
    responses=content(200, "The events", events("`id`: sequence; `event`: `event`; `data`: an EventView")),
)
async def tail_events(
    tail: Annotated[EventTail, feature(EventTail)],
    type: Annotated[str, Query(max_length=300, description="a type, or a prefix such as `com.acme.*`")] = "",
    last_event_id: LastEventId = None,
) -> Response:
    """Each event as it is stored; with `Last-Event-ID` also the stored ones after it. Does not end by itself."""
    return await tail.follow(type, last_event(last_event_id))


@router.get("/{event}", summary="Explain an event", dependencies=_READ, responses=problems(404))
async def explain_event(
    explanations: Service,
    event: Annotated[str, Path(description="digest or sequence of the event")],
    deployment: Annotated[str | None, Query(description="only of this deployment")] = None,
) -> ExplanationView:
    """What each deployment decided: the run that it started, or the part of a filter that was false."""
    return await explanations.explain(event, deployment)
