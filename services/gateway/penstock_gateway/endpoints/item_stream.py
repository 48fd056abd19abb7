"""The items of the output of a call, as its warm worker yields them.

Nothing here is unbounded: the worker waits when `STREAM_WINDOW` bytes are on their way, until the client has read them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, cast

import orjson
import pydantic

from penstock_contracts.warm_calls import CallReply, Refusal
from penstock_core.errors import PenstockError
from penstock_core.fork_server_protocol import STREAM_WINDOW

_CONFIRM = STREAM_WINDOW // 4
"""Bytes that are confirmed together."""


class ItemStream:
    """The replies to one call. `send` sends a message to the executor; `subject` is that of the replies."""

    def __init__(self, subject: str, send: Callable[[bytes], Awaitable[None]]) -> None:
        self._subject = subject
        self._send = send
        self._replies: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._confirmed = 0
        self.count = 0
        self.end: CallReply | None = None

    def put(self, data: bytes) -> None:
        """Take a reply."""
        try:
            self._replies.put_nowait(orjson.loads(data))
        except ValueError as error:
            self.lose(f"it sent an invalid reply: {error}")

    def lose(self, why: str) -> None:
        """End the stream: its executor is gone."""
        self._replies.put_nowait({"refused": Refusal.CRASHED.value, "detail": why})

    async def parts(self, deadline: float, pause: float) -> AsyncGenerator[list[Any]]:
        """Yield the items that have come; an empty list after `pause` seconds without one. Then `end` is set.

        Raises:
            TimeoutError: it has not ended at the deadline, a time of the loop.
        """
        loop, sent = asyncio.get_running_loop(), 0
        while self.end is None:
            until = min(deadline, loop.time() + pause)
            try:
                async with asyncio.timeout_at(until):
                    reply = await self._replies.get()
            except TimeoutError:
                if until == deadline:
                    raise
                yield []
                continue
            if "items" not in reply:
                self.end = _end(reply)
            elif reply.get("first") != self.count:
                await self.close()
                self.end = CallReply(refused=Refusal.CRASHED, detail="items were lost between executor and gateway")
            else:
                items = cast("list[Any]", reply["items"])
                self.count += len(items)
                yield items
                sent = int(reply["sent"])
                if sent - self._confirmed >= _CONFIRM:
                    self._confirmed = sent
                    await self._send(orjson.dumps({"received": [self._subject, sent]}))

    async def close(self) -> None:
        """Cancel the call unless it has ended."""
        if self.end is None:
            self.end = CallReply()
            with contextlib.suppress(PenstockError):  # without a connection, the worker waits until its time limit
                await self._send(orjson.dumps({"cancel": self._subject}))


def _end(reply: dict[str, Any]) -> CallReply:
    try:
        return CallReply.model_validate(reply)
    except pydantic.ValidationError as error:
        return CallReply(refused=Refusal.CRASHED, detail=f"it sent an invalid reply: {error}")
