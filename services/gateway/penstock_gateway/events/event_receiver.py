"""Events, delivered to the steps that wait for them.

An event is stored first and then matched with the waiting steps; a step that starts to wait looks for stored events
(see `penstock_adapters.nats.buckets.waits`). Sending an event again with its ID is safe at any time, and completes a
delivery that a crash of a gateway interrupted: the event that was stored first counts.
"""

from __future__ import annotations

import secrets
import time

from penstock_adapters.nats.buckets.waits import EventKey, Waits, came
from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_contracts import subjects
from penstock_contracts.commands import Event, Wait
from penstock_contracts.waits import DeliveredStep, EventAccepted
from penstock_core.facts import AttemptFinished, RunRequested

_CHUNK = 256


class EventReceiver:
    """Receives the events of one project."""

    def __init__(self, bus: Bus, log: NatsRunLog, project: str) -> None:
        self._waits = Waits(bus)
        self._log = log
        self._project = project

    async def receive(self, event: Event) -> EventAccepted:
        """Store an event and finish the steps that wait for it.

        Raises:
            UnavailableError: the log does not answer; sending the event again with its ID is safe.
        """
        key = EventKey(self._project, event.type, event.key)
        event = event.model_copy(update={"id": event.id or secrets.token_hex(16), "at": time.time()})
        duplicate = not await self._waits.publish(key, event)
        if duplicate:
            event = await self._first(key, event)
        waiting = await self._waits.waiting(key)
        if duplicate:
            # Runs that were requested after the event came wait for another one.
            waiting = await self._subscribed_before(waiting, event.at)
        delivered_to: list[DeliveredStep] = []
        for start in range(0, len(waiting), _CHUNK):
            delivered_to += await self._end(waiting[start : start + _CHUNK], event)
        return EventAccepted(
            id=event.id, type=event.type, key=event.key, at=event.at, duplicate=duplicate, delivered_to=delivered_to
        )

    async def _first(self, key: EventKey, event: Event) -> Event:
        """Return the stored event of the same ID; this one when the stored one has expired."""
        return next((known for known in await self._waits.events(key) if known.id == event.id), event)

    async def _subscribed_before(self, waiting: list[Wait], at: float) -> list[Wait]:
        names = {subjects.run(wait.run_id, "requested") for wait in waiting}
        requests = [record.fact for record in (await self._log.last(sorted(names))).values()]
        before = {fact.run_id for fact in requests if isinstance(fact, RunRequested) and fact.requested_at <= at}
        return [wait for wait in waiting if wait.run_id in before]

    async def _end(self, waiting: list[Wait], event: Event) -> list[DeliveredStep]:
        facts = [came(wait, event, time.time()) for wait in waiting]
        written = await self._log.append(facts)
        existing = [
            subjects.finished(fact.run_id, fact.key, fact.attempt)
            for fact, new in zip(facts, written, strict=True)
            if not new
        ]
        # The scheduler may have matched the same event at the same time.
        known = await self._log.last(existing) if existing else {}
        found = [fact for fact, new in zip(facts, written, strict=True) if new]
        ends = [record.fact for record in known.values() if isinstance(record.fact, AttemptFinished)]
        found += [end for end in ends if end.params.get("event") == event.id]
        return [DeliveredStep(run_id=fact.run_id, step=fact.key, attempt=fact.attempt) for fact in found]
