"""Responses in chunks; work for a client that has disconnected stops at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from penstock_gateway.http.connections import abort_connection

_PART = 256 * 1024
"""Bytes sent at a time: small enough to tell a slow client from one that does not read."""


async def while_connected(receive: Receive, work: Coroutine[None, None, None], *ends: asyncio.Task[object]) -> bool:
    """Run `work` until it finishes, the client disconnects, or one of `ends` finishes; return whether it finished.

    The work is cancelled otherwise. Raises the errors of the work.
    """
    task = asyncio.create_task(work)
    others = [asyncio.create_task(_disconnected(receive)), *ends]
    try:
        await asyncio.wait([task, *others], return_when=asyncio.FIRST_COMPLETED)
        done = task.done()
    finally:
        for other in (task, *others):
            other.cancel()
        results = await asyncio.gather(task, *others, return_exceptions=True)
    if isinstance(results[0], Exception):
        raise results[0]
    return done


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class StreamedResponse(Response):
    """Streams chunks. Headers are sent with the first one: an error before it becomes a problem response.

    With `stall`, a client that does not read for that many seconds is disconnected and sees an incomplete response.
    """

    def __init__(
        self,
        chunks: Callable[[], AsyncGenerator[bytes]],
        status: int = 200,
        headers: dict[str, str] | None = None,
        stall: float | None = None,
    ) -> None:
        super().__init__(None, status, headers)
        if "content-length" not in (headers or {}):
            del self.headers["content-length"]
        self._chunks = chunks
        self._stall = stall

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the stream."""
        try:
            await while_connected(receive, self._send(send))
        except _StalledClientError:
            abort_connection(scope)  # without a last chunk

    async def _send(self, send: Send) -> None:
        async with contextlib.aclosing(self._chunks()) as chunks:
            first = await anext(chunks, b"")
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await self._write(send, first)
            async for chunk in chunks:
                await self._write(send, chunk)
        await send({"type": "http.response.body", "body": b""})

    async def _write(self, send: Send, chunk: bytes) -> None:
        for start in range(0, len(chunk), _PART):
            try:
                async with asyncio.timeout(self._stall):
                    part = chunk[start : start + _PART]
                    await send({"type": "http.response.body", "body": part, "more_body": True})
            except TimeoutError as error:
                raise _StalledClientError from error


class _StalledClientError(Exception):
    """The client does not read."""
