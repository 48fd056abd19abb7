"""Attempts that wait for events, by type and key of the event.

The triggers service takes an event from the stream and then looks for waits; a waiting attempt subscribes and then
looks into the stream. So one of the two finds the other, in any order. An end is append-once, so both may.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import orjson
import pydantic

from penstock_adapters.nats.buckets.kv import Bucket, Entry
from penstock_adapters.nats.bus import Bus, BusError
from penstock_adapters.nats.event_stream import EventStream
from penstock_contracts import subjects
from penstock_contracts.commands import Wait
from penstock_core.deployments.definition import is_event_type
from penstock_core.deployments.events import Event
from penstock_core.facts import AttemptFinished, Outcome, StepSuspended
from penstock_core.pipeline.values import Inline
from penstock_core.run.suspension import plain

_LOOKED_UP = 500

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


def keys(event: Event) -> list[str]:
    """The keys by which waits find an event: the extensions `key`, and `keys` with several ones."""
    several = str(event.extensions.get("keys", ""))
    return [str(event.extensions.get("key", "")), *(key for key in several.split(",") if key)]


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
        params={"event": event.id},
        finished_at=now,
    )


class Waits:
    """The attempts that wait for events."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._bucket = Bucket(bus, subjects.WAITS_BUCKET)
        self._events = EventStream(bus)

    async def expect(self, fact: StepSuspended, after: float) -> Event | None:
        """Subscribe an attempt; returns an event that was stored already, after a Unix time in seconds."""
        await self._bucket.put(_key(fact), wait(fact).model_dump_json().encode())
        wanted = about(fact)
        if not is_event_type(wanted.type):
            return None  # no event can have it
        found = await self._events.since(wanted.project, wanted.type, after)
        return next((event for event in found if wanted.key in keys(event)), None)

    async def forget(self, fact: StepSuspended) -> None:
        """Unsubscribe an attempt."""
        if await self._bucket.get(_key(fact)) is not None:
            await self._bucket.delete(_key(fact))

    async def waiting(self, events: Sequence[Event]) -> list[tuple[Wait, list[Event]]]:
        """The attempts that wait for these events, each with those that it waits for, in the same order."""
        by_digest: dict[str, list[Event]] = {}
        for event in events:
            for key in keys(event):
                by_digest.setdefault(EventKey(event.project, event.type, key).digest, []).append(event)
        patterns = [f"{found[0].project}.{digest}.*.*.*" for digest, found in by_digest.items()]
        entries: list[Entry] = []
        for start in range(0, len(patterns), _LOOKED_UP):
            entries += await self._find(patterns[start : start + _LOOKED_UP])
        return [(_WAIT.validate_json(entry.value), by_digest[entry.key.split(".")[1]]) for entry in entries]

    async def _find(self, patterns: Sequence[str]) -> list[Entry]:
        """The waits at several patterns: by one request, or page by page if these are too many for one answer."""
        try:
            return await self._bucket.latest(patterns)
        except BusError:
            return [entry for pattern in patterns for entry in await self._bucket.list(pattern)]


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
