"""Receives events from publishers that speak NATS, beside `POST /v1/events`."""

from __future__ import annotations

from penstock_contracts import subjects
from penstock_contracts.commands import Event, EventReply
from penstock_gateway.events import cloudevents
from penstock_gateway.events.event_receiver import EventReceiver
from penstock_servicekit.request_handlers import answer
from penstock_servicekit.service_context import ServiceContext


def subscribe(context: ServiceContext, receiver: EventReceiver) -> None:
    """Reply to events on `subjects.GATEWAY_EVENT`."""

    async def receive(event: Event) -> EventReply:
        received = await receiver.receive(cloudevents.check(event))
        return EventReply(id=received.id, duplicate=received.duplicate, delivered=len(received.delivered_to))

    answer(context, subjects.GATEWAY_EVENT, receive, _error)


def _error(error: str, unavailable: bool) -> EventReply:
    return EventReply(error=error, unavailable=unavailable)
