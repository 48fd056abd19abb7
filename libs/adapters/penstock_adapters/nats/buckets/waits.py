"""Events that steps wait for: stored by type and key, and matched with the waiting attempts.

The receiver of an event stores it and then looks for waits; a waiting attempt subscribes and then looks for events. So
one of the two finds the other, in any order. An end is append-once, so both may find each other.
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
    """The key of an event: project, type, and the key by which it is matched."""

    project: str
    type: str
    key: str

    @property
    def digest(self) -> str:
        """A subject token for type and key, whatever characters they contain."""
        return hashlib.sha256(f"{self.type}\0{self.key}".encode()).hexdigest()[:32]


def about(fact: StepSuspended) -> EventKey:
    """The key of the event that a suspended step waits for."""
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
        """Subscribe an attempt; returns an event that came already, after a Unix time in seconds."""
        await self._bucket.put(_key(fact), wait(fact).model_dump_json().encode())
        found = [event for event in await self.events(about(fact)) if event.at >= after]
        return found[0] if found else None

    async def forget(self, fact: StepSuspended) -> None:
        """Unsubscribe an attempt."""
        if await self._bucket.get(_key(fact)) is not None:
            await self._bucket.delete(_key(fact))

    async def waiting(self, what: EventKey) -> list[Wait]:
        """The attempts that wait for an event with this key."""
        entries = await self._bucket.list(f"{what.project}.{what.digest}.*.*.*")
        return [_WAIT.validate_json(entry.value) for entry in entries]

    async def publish(self, what: EventKey, event: Event) -> bool:
        """Store an event; False when one of its id is stored already."""
        name = hashlib.sha256(event.id.encode()).hexdigest()[:32]  # an id may contain characters that a header may not
        headers = {"Nats-Msg-Id": f"{what.project}.{what.digest}.{name}"} if event.id else {}
        subject = subjects.event(what.project, what.digest)
        answer = await self._bus.publish(subject, event.model_dump_json().encode(), headers)
        return not answer.get("duplicate", False)

    async def events(self, what: EventKey) -> list[Event]:
        """The latest events, oldest first."""
        messages = await self._bus.read(subjects.EVENTS, subjects.event(what.project, what.digest))
        return [Event.model_validate_json(message.data) for message in messages]


def _key(fact: StepSuspended) -> str:
    step = hashlib.sha256(fact.key.encode()).hexdigest()[:16]  # any characters
    return f"{fact.project}.{about(fact).digest}.{fact.run_id}.{step}.{fact.attempt}"


class Alarms:
    """Timers of runs: message schedules of the broker (NATS ADR-51).

    Each time has its own message, so that a replica with older state cannot replace the timer of another one. A timer
    that is no longer needed wakes the run without effect.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def arm(self, run_id: str, at_ms: int) -> None:
        """Wake the scheduler for a run at a Unix time in milliseconds."""
        headers = {
            "Nats-Schedule": f"@at {subjects.rfc3339(at_ms)}",
            "Nats-Schedule-Target": subjects.wake(run_id),
            "Nats-Rollup": "sub",
        }
        await self._bus.publish(
            subjects.alarm(run_id, at_ms), orjson.dumps({"run_id": run_id, "at_ms": at_ms}), headers
        )

    async def disarm(self, run_id: str) -> None:
        """Remove the timers of a finished run."""
        await self._bus.api(f"STREAM.PURGE.{subjects.TIMERS}", {"filter": subjects.alarms(run_id)})

    async def done(self, sequence: int) -> None:
        """Remove a timer that was handled."""
        body = {"seq": sequence, "no_erase": True}
        await asyncio.gather(
            self._bus.api(f"STREAM.MSG.DELETE.{subjects.TIMERS}", body), return_exceptions=True
        )  # the limits of the stream bound those that remain
