"""`/v1/events`: send an event to the steps that wait for it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request, Response

from penstock_contracts.waits import EventAccepted
from penstock_core.access import Permission
from penstock_gateway.events import cloudevents
from penstock_gateway.events.event_receiver import EventReceiver
from penstock_gateway.http.parameters import feature, requires
from penstock_gateway.http.responses import BODY, COMMON, problems

router = APIRouter(prefix="/v1/events", tags=["waits"], responses=COMMON)

_EVENT = {
    "type": "object",
    "required": ["type"],
    "properties": {
        "type": {"type": "string", "minLength": 1, "maxLength": 300},
        "id": {"type": "string", "maxLength": 200, "description": "the same ID is the same event, within a day"},
        "key": {"type": "string", "maxLength": 1000, "description": "extension attribute, matched with the wait's key"},
        "source": {"type": "string", "maxLength": 1000},
        "data": {"description": "JSON payload of at most 64 KiB, delivered to the waiting steps"},
    },
}
_CONTENT = {
    "application/cloudevents+json": {"schema": _EVENT},
    "application/json": {
        "schema": {"description": "an event; or its data, with `ce-type`, `ce-id` and `ce-key` as headers"}
    },
}


@router.post(
    "",
    status_code=202,
    summary="Send an event to the steps that wait for it",
    dependencies=[requires(Permission.EVENTS_SEND)],
    responses={
        200: {"model": EventAccepted, "description": "An event with this ID was stored before"},
        **problems(*BODY),
    },
    openapi_extra={"requestBody": {"required": True, "content": _CONTENT}},
)
async def send_event(
    receiver: Annotated[EventReceiver, feature(EventReceiver)], request: Request, response: Response
) -> EventAccepted:
    """Stores a CloudEvent and finishes the steps of existing runs that wait for its type and key, now or later.

    Sending it again with the same ID is idempotent, and completes a delivery that a failure interrupted.
    """
    received = await receiver.receive(await cloudevents.read(request))
    response.status_code = 200 if received.duplicate else 202
    return received
