"""Server-sent events (WHATWG HTML, section 9.2) from a stream of the log.

The client sets the pace: the next messages are requested after the previous ones were sent, so a slow client costs one
bounded batch and one socket buffer. A client that reads nothing for a while is disconnected; a client that disconnects
is noticed at once, and its consumer is deleted. Comments keep an idle connection open through proxies.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from penstock_gateway.http.connections import abort_connection
from penstock_gateway.http.streaming import while_connected

HEARTBEAT = 15.0
"""Seconds of silence after which a comment is sent."""

OPENING = b": on\n\n"
"""First frame of every stream: it makes the server send the headers, so the client knows that it is connected."""

_COMMENT = b": still here\n\n"
_CHUNK = 64 * 1024

Frames = AsyncGenerator[list[bytes]]
"""Batches of frames, the first is `[OPENING]`; an empty batch means that nothing arrived for `HEARTBEAT` seconds."""


def frame(seq: int, event: str, data: bytes) -> bytes:
    """Return the frame of one event. `data` is JSON on one line."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (seq, event.encode(), data)


class _StalledClientError(Exception):
    """The client does not read."""


class EventStream(Response):
    """Sends `frames` until they end, the client disconnects, or `closing` is set."""

    media_type = "text/event-stream"

    def __init__(self, frames: Callable[[], Frames], closing: asyncio.Event, stall: float) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._frames = frames
        self._closing = closing
        self._stall = stall
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the stream."""
        closing = asyncio.create_task(self._closing.wait())
        try:
            done = await while_connected(receive, self._pump(send), closing)
        except _StalledClientError:
            abort_connection(scope)  # without a last chunk
            return
        if not done and self._closing.is_set() and self._started:
            await send({"type": "http.response.body", "body": b""})

    async def _pump(self, send: Send) -> None:
        async def write(message: Message) -> None:
            try:
                async with asyncio.timeout(self._stall):
                    await send(message)
            except TimeoutError as error:
                raise _StalledClientError from error

        async with contextlib.aclosing(self._frames()) as batches:
            async for batch in batches:
                # Headers are sent with the first batch: an error before it can still become a problem response.
                if not self._started:
                    await write({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                    self._started = True
                for chunk in _parts(batch):
                    await write({"type": "http.response.body", "body": chunk, "more_body": True})
        await write({"type": "http.response.body", "body": b""})


def _parts(batch: list[bytes]) -> list[bytes]:
    """Return a batch in parts of about `_CHUNK` bytes."""
    if not batch:
        return [_COMMENT]
    parts: list[bytes] = []
    part: list[bytes] = []
    size = 0
    for item in batch:
        part.append(item)
        size += len(item)
        if size >= _CHUNK:
            parts.append(b"".join(part))
            part, size = [], 0
    return [*parts, b"".join(part)] if part else parts
