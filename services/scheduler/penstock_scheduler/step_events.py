"""Publishes the events that successful attempts send, and those about their artifacts: `effects.PublishEvents`.

In: the request of a run, and the end of an attempt in its log. Out: events in the stream EVENTS. Idempotent: the id of
an event is derived from its run, step, and number or name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from penstock_contracts import event_codec, fact_codec, subjects
from penstock_core import run_events
from penstock_core.deployments.events import Event
from penstock_core.errors import PenstockError, UnavailableError
from penstock_core.facts import AttemptFinished, RunRequested
from penstock_core.ports import Recorded

Park = Callable[[str, bytes, str], Awaitable[None]]


class Events(Protocol):
    """The stream of events."""

    async def publish(self, event: Event) -> tuple[int, bool]:
        """Store an event; returns its sequence, and whether it was stored before."""
        ...


class Facts(Protocol):
    """The log of runs."""

    async def last(self, places: Sequence[str]) -> dict[str, Recorded]:
        """Return the last facts of these subjects, by subject."""
        ...


class StepEvents:
    """Publishes events of steps. What cannot be published is sent to the dead-letter stream with `park`.

    Args:
        facts: the log of runs.
        events: the stream of events.
        park: stores a message in the dead-letter stream.
        retention: seconds that events and decisions on them are kept; older ends publish nothing, because deployments
            would run for their events again.
        clock: returns the Unix time in seconds.
    """

    def __init__(self, facts: Facts, events: Events, park: Park, retention: float, clock: Callable[[], float]) -> None:
        self._facts = facts
        self._events = events
        self._park = park
        self._retention = retention
        self._clock = clock

    async def publish(self, requested: RunRequested, key: str, attempt: int) -> None:
        """Publish the events of an attempt. Repeating it starts nothing again.

        Raises:
            UnavailableError: the log or the stream does not answer; a retry is safe.
        """
        place = subjects.finished(requested.run_id, key, attempt)
        recorded = (await self._facts.last([place])).get(place)
        if recorded is None:
            raise UnavailableError(f"the end of an attempt at {place} cannot be read yet")
        end = recorded.fact
        if not isinstance(end, AttemptFinished) or end.finished_at < self._clock() - self._retention:
            return
        wanted = [
            (run_events.step_event(requested, end, number), sent.data) for number, sent in enumerate(end.events, 1)
        ]
        wanted += [run_events.artifact_committed(requested, end, name) for name in end.artifacts]
        for attributes, data in wanted:
            try:
                await self._events.publish(event_codec.event(requested.project, attributes, data))
            except UnavailableError:
                raise
            except PenstockError as error:
                why = f"event {attributes['type']!r} is not published: {error}"
                await self._park(place, fact_codec.encode(end), why)
