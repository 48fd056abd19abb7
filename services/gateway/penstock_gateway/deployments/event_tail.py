"""Events as they arrive, by server-sent events."""

from __future__ import annotations

import asyncio

from fastapi import Response

from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.follower import Followers, StreamMessage
from penstock_contracts import event_codec, subjects
from penstock_contracts.event_codec import InvalidEventError
from penstock_gateway.deployments.explanations import event_view, type_pattern
from penstock_gateway.http import sse
from penstock_gateway.http.responses import to_json


class EventTail:
    """Streams the events of one project.

    Args:
        bus: the connection.
        followers: follow streams of the bus.
        project: whose events are streamed.
        closing: set when the gateway stops, which ends all streams.
        stall: seconds after which a client that does not read is disconnected.
    """

    def __init__(self, bus: Bus, followers: Followers, project: str, closing: asyncio.Event, stall: float) -> None:
        self._bus = bus
        self._followers = followers
        self._project = project
        self._closing = closing
        self._stall = stall

    async def follow(self, type: str, after: int) -> Response:
        """Stream events of a type (or a prefix such as `com.acme.*`) after a sequence; 0: from now on.

        Raises:
            UnavailableError: the stream cannot be read.
        """
        if not after:
            after = int((await self._bus.api(f"STREAM.INFO.{subjects.EVENTS}"))["state"]["last_seq"])
        subject = subjects.event(self._project, type_pattern(type))
        return sse.EventStream(lambda: self._frames(subject, after), self._closing, self._stall)

    async def _frames(self, subject: str, after: int) -> sse.Frames:
        async with self._followers.follow(subjects.EVENTS, [subject], after) as follower:
            yield [sse.OPENING]
            while True:
                items = await follower.take(sse.HEARTBEAT)
                batch = [frame for item in items for frame in _frame(item)]
                if batch or not items:
                    yield batch


def _frame(item: StreamMessage) -> list[bytes]:
    """Return one frame, or none for a message that is not an event."""
    try:
        event = event_codec.read(item.subject, item.headers, item.data, item.at, item.seq)
    except InvalidEventError:
        return []
    return [sse.frame(item.seq, "event", to_json(event_view(event)))]
