"""`/v1/events`: send events, which start runs and complete waiting steps."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Request, Response

from penstock_adapters.nats.event_stream import EventStream
from penstock_contracts.waits import EventAccepted, EventsAccepted
from penstock_core.access import Permission
from penstock_core.deployments.events import Event
from penstock_gateway.events import cloudevents
from penstock_gateway.events.event_types_service import EventTypeRegistry
from penstock_gateway.http.parameters import feature, requires
from penstock_gateway.http.principal import Project
from penstock_gateway.http.responses import BODY, COMMON, problems

router = APIRouter(prefix="/v1/events", tags=["events"], responses=COMMON)

_EVENT = {
    "type": "object",
    "required": ["id", "source", "type"],
    "additionalProperties": {"type": ["string", "integer", "boolean"], "description": "an extension attribute"},
    "properties": {
        "specversion": {"type": "string"},
        "id": {"type": "string", "minLength": 1, "description": "with `source`, identifies the event"},
        "source": {"type": "string", "minLength": 1},
        "type": {"type": "string", "minLength": 1, "maxLength": 300},
        "time": {"type": "string", "description": "when it happened, in RFC 3339"},
        "subject": {"type": "string"},
        "key": {"type": "string", "maxLength": 1000, "description": "matched with the key of waiting steps"},
        "data": {"description": "JSON payload of at most 64 KiB"},
    },
}
_CONTENT = {
    "application/cloudevents+json": {"schema": _EVENT},
    "application/cloudevents-batch+json": {"schema": {"type": "array", "items": _EVENT}},
    "application/json": {
        "schema": {"description": "an event; or its data, with `ce-id`, `ce-source` and `ce-type` as headers"}
    },
}


@router.post(
    "",
    status_code=202,
    summary="Send an event",
    dependencies=[requires(Permission.EVENTS_SEND)],
    responses={
        200: {"model": EventAccepted, "description": "An event with this source and ID was stored before"},
        **problems(429, *BODY),
    },
    openapi_extra={"requestBody": {"required": True, "content": _CONTENT}},
)
async def send_event(
    stream: Annotated[EventStream, feature(EventStream)],
    types: Annotated[EventTypeRegistry, feature(EventTypeRegistry)],
    request: Request,
    response: Response,
    project: Project,
) -> EventAccepted | EventsAccepted:
    """Stores a CloudEvent, or a batch of them: deployments start runs for it, and steps that wait for it continue.

    Answered when it is stored. Sending an event again with the same source and ID is idempotent. Its data must fit the
    schema of its type, if one is registered.
    """
    events = await cloudevents.read(request, project)
    request.app.state.projects.admit_events(project, len(events))
    await types.check(events, batch=cloudevents.is_batch(request))
    accepted = await asyncio.gather(*(_store(stream, event) for event in events))
    if cloudevents.is_batch(request):
        return EventsAccepted(events=accepted)
    response.status_code = 200 if accepted[0].duplicate else 202
    return accepted[0]


async def _store(stream: EventStream, event: Event) -> EventAccepted:
    sequence, duplicate = await stream.publish(event)
    return EventAccepted(
        id=event.id, source=event.source, type=event.type, sequence=sequence, digest=event.digest, duplicate=duplicate
    )
