"""The stream `EVENTS`: everything that may start runs or that steps wait for."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from nats.aio.msg import Msg

from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.consumer import Delivery
from penstock_adapters.nats.newest import newest, sequence
from penstock_contracts import event_codec, subjects
from penstock_contracts.event_codec import InvalidEventError
from penstock_core.deployments.decisions import EventRef
from penstock_core.deployments.events import Event

_PAGE = 200


class EventStream:
    """Publishes and reads events."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def publish(self, event: Event) -> tuple[int, bool]:
        """Store an event. Its acknowledgement means that it is stored.

        Returns:
            Its sequence, and whether the broker knew it (an event with its source and id within a day).

        Raises:
            UnavailableError: no answer; publishing again is safe.
            BusError: the server refused.
        """
        answer = await self._bus.publish(
            event_codec.subject(event), event_codec.encode(event), event_codec.headers(event)
        )
        return int(answer["seq"]), bool(answer.get("duplicate", False))

    async def get(self, sequence: int) -> Event | None:
        """Return the event at a sequence, or None if it has expired or cannot be read."""
        if sequence < 1:
            return None
        messages = await self._bus.direct_get(subjects.EVENTS, {"seq": sequence, "batch": 1})
        found = [event for message in messages if (event := read(message)) is not None]
        return found[0] if found and found[0].sequence == sequence else None

    async def get_all(self, references: Sequence[EventRef]) -> list[Event]:
        """Return the referenced events that have not expired, in the same order."""
        found = [await self.get(reference.sequence) for reference in references]
        return [event for event in found if event is not None]

    async def by_digest(self, project: str, digest: str) -> Event | None:
        """Return the first stored event with a digest, or None. Searches the events of the project, newest first."""
        before: int | None = None
        while page := await self.newest(project, ">", _PAGE, before):
            for event in page:
                if event.digest == digest:
                    return event
            before = page[-1].sequence
        return None

    async def newest(self, project: str, pattern: str, limit: int, before: int | None = None) -> list[Event]:
        """Return the newest events whose types match a subject pattern, below a sequence, newest first."""
        return await newest(self._bus, subjects.EVENTS, subjects.event(project, pattern), read, limit, before)

    async def since(self, project: str, type: str, after: float) -> list[Event]:
        """Return the events of a type that were stored after a Unix time in seconds, oldest first."""
        return [event async for event in self._from(project, type, after)]

    async def between(
        self, project: str, types: Collection[str], start: float, end: float, takes: Callable[[Event], bool], limit: int
    ) -> list[Event]:
        """Return the first events in an interval of Unix times that a predicate takes, oldest first.

        Args:
            project: the project.
            types: types, or prefixes such as `com.acme.*`.
            start: events stored then or later.
            end: events stored before.
            takes: the predicate.
            limit: most events.
        """
        found: dict[int, Event] = {}
        for type in types:
            pattern = type.removesuffix("*") + ">" if type.endswith("*") else type
            mine = 0
            async for event in self._from(project, pattern, start):
                if event.received_at >= end or mine >= limit:
                    break
                if event.received_at >= start and takes(event):
                    found[event.sequence] = event
                    mine += 1
        return [found[sequence] for sequence in sorted(found)[:limit]]

    async def _from(self, project: str, pattern: str, start: float) -> AsyncGenerator[Event]:
        at = datetime.fromtimestamp(max(start, 0.0), UTC).isoformat().replace("+00:00", "Z")
        subject = subjects.event(project, pattern)
        query: dict[str, Any] = {"start_time": at, "batch": _PAGE, "next_by_subj": subject}
        while True:
            page = await self._bus.direct_get(subjects.EVENTS, query)
            for message in page:
                if (event := read(message)) is not None:
                    yield event
            if len(page) < _PAGE:
                return
            query = {"seq": sequence(page[-1]) + 1, "batch": _PAGE, "next_by_subj": subject}


def decode(delivery: Delivery) -> Event:
    """Return the event of a delivery.

    Raises:
        InvalidEventError: it is not one.
    """
    return event_codec.read(delivery.subject, delivery.headers, delivery.data, delivery.at, delivery.stream_seq)


def read(message: Msg) -> Event | None:
    """Return the event of a message from a direct read; None if it is not one."""
    headers: Mapping[str, str] = message.headers or {}
    received = datetime.fromisoformat(headers["Nats-Time-Stamp"]).timestamp()
    try:
        return event_codec.read(headers["Nats-Subject"], headers, message.data, received, sequence(message))
    except InvalidEventError:
        return None
