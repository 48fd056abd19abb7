"""Announces every change of a registered model, once it is in the model's log.

In: deliveries of the stream MODELS. Out: an event on `triggers.{project}.{type}`, for what starts runs, and the same to
the steps that wait for it: without a key, with the model's name, and with `NAME@ALIAS` where it is about an alias.

Promise: whatever is in the log is announced, wherever a gateway is killed in between, because it is acknowledged last.
Announcing again changes nothing: an event's id is the place of the fact.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from penstock_adapters.nats import consumer
from penstock_adapters.nats.bus import Bus, BusError
from penstock_adapters.nats.consumer import Delivery, Puller
from penstock_contracts import model_fact_codec, subjects
from penstock_contracts.commands import Event
from penstock_contracts.fact_codec import UnreadableFact
from penstock_core.ports import UnavailableError
from penstock_core.registry.facts import ModelFact
from penstock_gateway.registry import model_views as views
from penstock_gateway.waits.event_receiver import EventReceiver
from penstock_servicekit.service_context import ServiceContext

_AHEAD = 50


class ModelAnnouncer:
    """Announces changes, one after the other, for as long as it runs."""

    def __init__(self, context: ServiceContext, event_receiver: EventReceiver) -> None:
        self._context = context
        self._bus: Bus = context.bus
        self._event_receiver = event_receiver
        self._queue: asyncio.Queue[Delivery] = asyncio.Queue()
        self._puller = Puller(context.bus, subjects.MODELS, subjects.MODELS_CONSUMER, self._queue.put_nowait)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin."""
        self._puller.want(_AHEAD)
        self._tasks = [self._context.task(self._puller.run()), self._context.task(self._run())]

    async def close(self) -> None:
        """Stop; what is not announced yet is announced by another gateway, or later."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError, Exception):  # a failure is told when it happens
                await task

    async def _run(self) -> None:
        while True:
            delivery = await self._queue.get()
            try:
                await self.announce(delivery)
                await consumer.ack(self._bus, delivery)
            except Exception as error:
                passing = isinstance(error, UnavailableError | BusError)
                self._context.log.log(
                    logging.WARNING if passing else logging.ERROR,
                    "an event about a model is sent later",
                    subject=delivery.subject,
                    error=str(error),
                    exc_info=not passing,
                )
                await consumer.nak(self._bus, delivery, 1.0 if passing else 30.0)

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
