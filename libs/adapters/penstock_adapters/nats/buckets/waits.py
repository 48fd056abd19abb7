"""Events that steps wait for: stored under what they are about, and matched with the attempts that wait.

Whoever has an event stores it and then looks for waits; whoever waits registers and then looks for events. So one of
the two finds the other, in whatever order they come. An end is append-once, so both may find each other.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass

import orjson
import pydantic

from penstock_adapters.nats.buckets.kv import Bucket
from penstock_adapters.nats.bus import Bus
from penstock_contracts import subjects
from penstock_contracts.commands import Event, Wait
from penstock_core.facts import AttemptFinished, Outcome, StepSuspended
from penstock_core.pipeline.values import Inline
from penstock_core.run.suspension import plain

_WAIT: pydantic.TypeAdapter[Wait] = pydantic.TypeAdapter(Wait)


@dataclass(frozen=True, slots=True)
class EventKey:
    """What an event is about: its project, its type, and the key by which it is matched."""

    project: str
    type: str
    key: str

    @property
    def digest(self) -> str:
        """A subject token that stands for type and key, whatever these contain."""
        return hashlib.sha256(f"{self.type}\0{self.key}".encode()).hexdigest()[:32]


def about(fact: StepSuspended) -> EventKey:
    """What the event is about that a suspended step waits for."""
    kind, key = (plain(fact.inputs.get(name)) for name in ("type", "key"))
    return EventKey(fact.project, str(kind), "" if key is None else str(key))


def wait(fact: StepSuspended) -> Wait:
    """The attempt that waits."""
    return Wait(run_id=fact.run_id, key=fact.key, attempt=fact.attempt)


def came(waiting: Wait, event: Event, now: float) -> AttemptFinished:
    """The end of a wait for an event that came."""
    return AttemptFinished(
        run_id=waiting.run_id,
        key=waiting.key,
        attempt=waiting.attempt,
        outcome=Outcome.SUCCEEDED,
        outputs={"result": Inline(event.data)},
        params={"event": event.id or event.type},
        finished_at=now,
    )


class Waits:
    """The attempts that wait for events, and the latest events."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._bucket = Bucket(bus, subjects.WAITS_BUCKET)

    async def expect(self, fact: StepSuspended, after: float) -> Event | None:
        """Register a wait; gives an event that came already, after a time in Unix seconds."""
        await self._bucket.put(_key(fact), wait(fact).model_dump_json().encode())
        found = [event for event in await self.events(about(fact)) if event.at >= after]
        return found[0] if found else None

    async def forget(self, fact: StepSuspended) -> None:
        """The attempt waits no more."""
        if await self._bucket.get(_key(fact)) is not None:
            await self._bucket.delete(_key(fact))

    async def waiting(self, what: EventKey) -> list[Wait]:
        """The attempts that wait for such an event."""
        entries = await self._bucket.list(f"{what.project}.{what.digest}.*.*.*")
        return [_WAIT.validate_json(entry.value) for entry in entries]

    async def publish(self, what: EventKey, event: Event) -> bool:
        """Store an event; False when one of its id is stored already."""
        name = hashlib.sha256(event.id.encode()).hexdigest()[:32]  # an id holds what a header may not
        headers = {"Nats-Msg-Id": f"{what.project}.{what.digest}.{name}"} if event.id else {}
        subject = subjects.event(what.project, what.digest)
        answer = await self._bus.publish(subject, event.model_dump_json().encode(), headers)
        return not answer.get("duplicate", False)

    async def events(self, what: EventKey) -> list[Event]:
        """The latest events, oldest first."""
        messages = await self._bus.read(subjects.EVENTS, subjects.event(what.project, what.digest))
        return [Event.model_validate_json(message.data) for message in messages]


def _key(fact: StepSuspended) -> str:
    step = hashlib.sha256(fact.key.encode()).hexdigest()[:16]  # keys hold characters that a bucket's keys may not
    return f"{fact.project}.{about(fact).digest}.{fact.run_id}.{step}.{fact.attempt}"


class Alarms:
    """Timers of runs: message schedules of the broker (NATS ADR-51).

    Each time has a message of its own, so that a replica that knows less of a run cannot put off what another has set.
    One that is not needed any more wakes the run for nothing.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def arm(self, run_id: str, at_ms: int) -> None:
        """Have the scheduler woken for a run at a Unix time in milliseconds."""
        headers = {
            "Nats-Schedule": f"@at {subjects.rfc3339(at_ms)}",
            "Nats-Schedule-Target": subjects.wake(run_id),
            "Nats-Rollup": "sub",
        }
        await self._bus.publish(
            subjects.alarm(run_id, at_ms), orjson.dumps({"run_id": run_id, "at_ms": at_ms}), headers
        )

    async def disarm(self, run_id: str) -> None:
        """The run is over: it needs no timers."""
        await self._bus.api(f"STREAM.PURGE.{subjects.TIMERS}", {"filter": subjects.alarms(run_id)})

    async def done(self, sequence: int) -> None:
        """A wake was dealt with: its message is not needed any more."""
        body = {"seq": sequence, "no_erase": True}
        await asyncio.gather(
            self._bus.api(f"STREAM.MSG.DELETE.{subjects.TIMERS}", body), return_exceptions=True
        )  # one that stays is bounded by the stream's own limits
