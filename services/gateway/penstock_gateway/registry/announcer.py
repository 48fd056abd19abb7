"""Announces every change of a registered model, once it is in the model's log.

In: deliveries of the stream MODELS. Out: an event on `triggers.{project}.{type}`, for what starts runs, and the same to
the steps that wait for it: without a key, with the model's name, and with `NAME@ALIAS` where it is about an alias.

Promise: whatever is in the log is announced, wherever a gateway is killed in between, because it is acknowledged last.
Announcing again changes nothing: an event's id is the place of the fact.
"""

from __future__ import annotations

from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.consumer import Delivery
from penstock_contracts import model_fact_codec, subjects
from penstock_contracts.commands import Event
from penstock_contracts.fact_codec import UnreadableFact
from penstock_core.registry.facts import ModelFact
from penstock_gateway.registry import model_views as views
from penstock_gateway.waits.event_receiver import EventReceiver
from penstock_servicekit.durable_worker import DurableWorker
from penstock_servicekit.service_context import ServiceContext

_AHEAD = 50


class ModelAnnouncer:
    """Announces changes, one after the other, for as long as it runs."""

    def __init__(self, context: ServiceContext, event_receiver: EventReceiver) -> None:
        self._context = context
        self._bus: Bus = context.bus
        self._event_receiver = event_receiver
        self._worker = DurableWorker(context, subjects.MODELS, subjects.MODELS_CONSUMER, self.announce, prefetch=_AHEAD)

    def start(self) -> None:
        """Start to announce changes, one after the other."""
        self._worker.start()

    async def close(self) -> None:
        """Stop. Changes that are not announced yet are announced by another gateway, or later."""
        await self._worker.stop()

    async def announce(self, delivery: Delivery) -> None:
        """Announce what lies on a place of a model's log.

        Raises:
            Unavailable: the bus does not answer; announcing again is safe.
        """
        fact = model_fact_codec.read(delivery.subject, delivery.ce_type, delivery.data)
        if isinstance(fact, UnreadableFact):
            await self._context.park(delivery.subject, delivery.data, fact.why, delivery.stream_seq)
            return
        event = Event(
            type=fact.ce_type,
            id=fact.tail,
            source="penstock/models",
            data=views.change(fact).model_dump(),
            at=fact.at,
        )
        keys = _keys(fact)
        headers = {**model_fact_codec.headers(fact, event.source), "Nats-Msg-Id": f"{fact.ce_type}/{fact.tail}"}
        body = event.model_copy(update={"key": keys[-1]}).model_dump_json().encode()
        await self._bus.publish(subjects.trigger(fact.project, fact.ce_type), body, headers)
        for key in keys:
            await self._event_receiver.take(event.model_copy(update={"key": key}))


def _keys(fact: ModelFact) -> list[str]:
    """The keys under which those wait that the event is for."""
    alias = getattr(fact, "alias", None)
    return ["", fact.model, *([f"{fact.model}@{alias}"] if alias else [])]
