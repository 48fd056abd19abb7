"""Which runs begin, wait and end, by server-sent events: what lists of runs must show."""

from __future__ import annotations

import asyncio

import orjson
from fastapi import Response

from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.follower import Followers, StreamMessage
from penstock_contracts import subjects
from penstock_gateway.http import sse
from penstock_gateway.runs.run_reader import RunReader

_FILTERS = (
    "runs.*.*.requested",
    "runs.*.*.finished",
    "runs.*.*.deleted",
    "runs.*.*.step.*.*.suspended",
    "runs.*.*.step.*.*.queued",
)


class RunChanges:
    """Streams the changes of the runs of one project.

    Args:
        bus: the connection.
        followers: follow streams of the bus.
        reader: of the runs of the project.
        closing: set when the gateway stops, which ends all streams.
        stall: seconds after which a client that does not read is disconnected.
    """

    def __init__(self, bus: Bus, followers: Followers, reader: RunReader, closing: asyncio.Event, stall: float) -> None:
        self._bus = bus
        self._followers = followers
        self._reader = reader
        self._closing = closing
        self._stall = stall

    async def follow(self, after: int) -> Response:
        """Stream changes after a sequence; 0: from now on.

        Raises:
            UnavailableError: the stream cannot be read.
        """
        if not after:
            after = int((await self._bus.api(f"STREAM.INFO.{subjects.RUNS}"))["state"]["last_seq"])
        return sse.EventStream(lambda: self._frames(after), self._closing, self._stall)

    async def _frames(self, after: int) -> sse.Frames:
        async with self._followers.follow(subjects.RUNS, _FILTERS, after) as follower:
            yield [sse.OPENING]
            while True:
                items = await follower.take(sse.HEARTBEAT)
                batch = await self._changes(items)
                if batch or not items:
                    yield batch

    async def _changes(self, items: list[StreamMessage]) -> list[bytes]:
        """Return a frame for the last change of each run of the project."""
        last: dict[str, tuple[int, str]] = {}
        for item in items:
            subject = subjects.parse(item.subject)
            if subject is not None:
                last[subject.run_id] = item.seq, subject.kind
        found = await asyncio.gather(*(self._reader.find_request(run_id) for run_id in last))
        return [
            sse.frame(seq, "change", orjson.dumps({"run_id": run_id, "kind": kind, "pipeline": request.pipeline}))
            for (run_id, (seq, kind)), request in zip(last.items(), found, strict=True)
            if request is not None
        ]
