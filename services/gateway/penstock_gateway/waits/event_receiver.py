"""Events from outside, for the steps that wait for them.

An event is stored first and then matched with those that wait; whoever begins to wait looks for events that are stored
(see `penstock_adapters.nats.buckets.waits`). Sending an event again, with its id, is safe at any time and makes good
whatever a
gateway left undone that was killed in between: the event that was stored first counts.
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
    """Takes events of one project."""

    def __init__(self, bus: Bus, log: NatsRunLog, project: str) -> None:
        self._waits = Waits(bus)
        self._log = log
        self._project = project

    async def take(self, event: Event) -> EventAccepted:
        """Store an event, and end the waits for it.

        Raises:
            Unavailable: the log does not answer; sending it again, with its id, is safe.
        """
        what = EventKey(self._project, event.type, event.key)
        event = event.model_copy(update={"id": event.id or secrets.token_hex(16), "at": time.time()})
        duplicate = not await self._waits.publish(what, event)
        if duplicate:
            event = await self._first(what, event)
        waiting = await self._waits.waiting(what)
        if duplicate:
            # What was asked for after the event had come waits for another one.
            waiting = await self._subscribed_before(waiting, event.at)
        delivered_to: list[DeliveredStep] = []
        for start in range(0, len(waiting), _CHUNK):
            delivered_to += await self._end(waiting[start : start + _CHUNK], event)
        return EventAccepted(
            id=event.id, type=event.type, key=event.key, at=event.at, duplicate=duplicate, delivered_to=delivered_to
        )

    async def _first(self, what: EventKey, event: Event) -> Event:
        """The event of the same id that was stored before; this one where that is stored no more."""
        return next((known for known in await self._waits.events(what) if known.id == event.id), event)

    async def _subscribed_before(self, waiting: list[Wait], at: float) -> list[Wait]:
        places = {wait.run_id: subjects.run(wait.run_id, "requested") for wait in waiting}
        records = await self._log.last(list(places.values()))
        asked = [record.fact for record in records.values()]
        before = {fact.run_id for fact in asked if isinstance(fact, RunRequested) and fact.requested_at <= at}
        return [wait for wait in waiting if wait.run_id in before]

    async def _end(self, waiting: list[Wait], event: Event) -> list[DeliveredStep]:
        facts = [came(wait, event, time.time()) for wait in waiting]
        written = await self._log.append(facts)
        others = [
            subjects.finished(fact.run_id, fact.key, fact.attempt)
            for fact, new in zip(facts, written, strict=True)
            if not new
        ]
        # The scheduler may have matched the same event at the same time.
        known = await self._log.last(others) if others else {}
        found = [fact for fact, new in zip(facts, written, strict=True) if new]
        ends = [record.fact for record in known.values() if isinstance(record.fact, AttemptFinished)]
        found += [end for end in ends if end.params.get("event") == event.id]
        return [DeliveredStep(run_id=fact.run_id, step=fact.key, attempt=fact.attempt) for fact in found]
