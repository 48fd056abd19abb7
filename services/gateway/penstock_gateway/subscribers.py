"""The subject that the gateway answers beside HTTP: events from publishers that speak NATS."""

from __future__ import annotations

from penstock_contracts import subjects
from penstock_contracts.commands import Event, EventReply
from penstock_gateway.http.problems import ProblemError
from penstock_gateway.service import GatewayService
from penstock_gateway.waits import cloudevents
from penstock_servicekit.request_handlers import answer
from penstock_servicekit.service_context import ServiceContext


def register(context: ServiceContext, service: GatewayService) -> None:
    """Answer on `context`."""

    async def take(event: Event) -> EventReply:
        try:
            cloudevents.check(event)
        except ProblemError as error:
            return _problem(f"{error.title}: {error.detail}", unavailable=False)
        taken = await service.event_receiver.take(event)
        return EventReply(id=taken.id, duplicate=taken.duplicate, delivered=len(taken.delivered_to))

    answer(context, subjects.GATEWAY_EVENT, take, lambda error, later: _problem(error, unavailable=later))


def _problem(error: str, *, unavailable: bool) -> EventReply:
    return EventReply(error=error, unavailable=unavailable)
