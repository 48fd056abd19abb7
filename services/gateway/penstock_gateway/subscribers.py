"""The subject that the gateway answers beside HTTP: events from publishers that speak NATS."""

from __future__ import annotations

from penstock_contracts import subjects
from penstock_contracts.commands import Event, EventReply
from penstock_gateway import cloudevents
from penstock_gateway.problems import ProblemError
from penstock_gateway.service import GatewayService
from penstock_servicekit.answers import answer
from penstock_servicekit.link import Link


def register(link: Link, service: GatewayService) -> None:
    """Answer on `link`."""

    async def take(event: Event) -> EventReply:
        try:
            cloudevents.check(event)
        except ProblemError as error:
            return _problem(f"{error.title}: {error.detail}", unavailable=False)
        taken = await service.incoming.take(event)
        return EventReply(id=taken.id, duplicate=taken.duplicate, reached=len(taken.reached))

    answer(link, subjects.GATEWAY_EVENT, Event, take, lambda error, later: _problem(error, unavailable=later))


def _problem(error: str, *, unavailable: bool) -> EventReply:
    return EventReply(error=error, unavailable=unavailable)
