"""Publishes every change of a registered model as an event, once it is in the model's log.

In: deliveries of the stream MODELS. Out: an event in the stream EVENTS, which can start runs. Steps can wait for it
without a key, with the model's name, and with `NAME@ALIAS` if it concerns an alias.

Promise: every fact in the log is published at least once, because its delivery is acknowledged last. Publishing again
is idempotent: the event's ID is derived from the fact. Facts that are older than events can be are not published:
deployments would run again for them.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from penstock_adapters.nats.bootstrap import EVENT_RETENTION
from penstock_adapters.nats.consumer import Delivery
from penstock_adapters.nats.event_stream import EventStream
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_contracts import model_fact_codec, subjects
from penstock_contracts.fact_codec import UnreadableFact
from penstock_core import access, run_events
from penstock_core.deployments.events import Event
from penstock_core.facts import RunRequested
from penstock_core.registry.facts import ModelFact, ModelRegistered
from penstock_gateway.registry import model_views as views
from penstock_servicekit.durable_worker import DurableWorker
from penstock_servicekit.service_context import ServiceContext

SOURCE = "penstock/models"
"""Source of the events about models; their id is that of the fact."""

_PREFETCH = 50


class ModelAnnouncer:
    """Publishes changes in the order of the stream while it runs."""

    def __init__(self, context: ServiceContext, log: NatsRunLog, events: EventStream) -> None:
        self._context = context
        self._log = log
        self._events = events
        self._worker = DurableWorker(
            context, subjects.MODELS, subjects.MODELS_CONSUMER, self.announce, prefetch=_PREFETCH
        )

    async def start(self) -> None:
        """Start to publish."""
        self._worker.start()

    async def close(self) -> None:
        """Stop; another gateway publishes the rest, or this one after a restart."""
        await self._worker.stop()

    async def announce(self, delivery: Delivery) -> None:
        """Publish a fact of a model's log.

        Raises:
            UnavailableError: the bus does not answer; publishing again is safe.
        """
        fact = model_fact_codec.read(delivery.subject, delivery.ce_type, delivery.data)
        if isinstance(fact, UnreadableFact):
            await self._context.park(delivery.subject, delivery.data, fact.why, delivery.stream_seq)
            return
        if (fact.at or delivery.at) < time.time() - EVENT_RETENTION:
            return  # a consumer that was created again: the decisions on this event have expired
        event = Event(
            project=fact.project,
            type=fact.ce_type,
            source=SOURCE,
            id=fact.tail,
            time=datetime.fromtimestamp(fact.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            subject=fact.model,
            extensions={"keys": ",".join(_keys(fact)), **await self._hops(fact)},
            data=views.change(fact).model_dump(),
        )
        await self._events.publish(event)

    async def _hops(self, fact: ModelFact) -> dict[str, Any]:
        """Return the extension of events that a run causes, if a run made the change."""
        run_id = fact.run_id if isinstance(fact, ModelRegistered) else access.run_of(fact.by)
        if not run_id:
            return {}
        name = subjects.run(run_id, "requested")
        record = (await self._log.last([name])).get(name)
        return run_events.hops_of(record.fact.trigger) if record and isinstance(record.fact, RunRequested) else {}


def _keys(fact: ModelFact) -> list[str]:
    """Return the keys of the waits that match the event, beside none."""
    alias = getattr(fact, "alias", None)
    return [fact.model, *([f"{fact.model}@{alias}"] if alias else [])]
