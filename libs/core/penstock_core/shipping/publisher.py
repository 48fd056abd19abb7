"""Publishes the messages of attempts, several at a time, again and again until the broker has stored them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from penstock_core.errors import PenstockError, UnavailableError
from penstock_core.shipping.messages import Message

_TRIES = 6
_CONCURRENCY = 64


class MessagePublisher:
    """`submit` queues a message; `run` publishes. A message that cannot be stored is given up with a warning.

    `replace` publishes a message that replaces earlier ones on its subject: one at a time, and then the newest.

    Args:
        publish: publishes a message and waits until it is stored.
        warn: writes to the log of the service.
    """

    def __init__(self, publish: Callable[[Message], Awaitable[object]], warn: Callable[..., None]) -> None:
        self._publish = publish
        self._warn = warn
        self._newest: dict[str, Message] = {}
        self._replacing: set[asyncio.Task[None]] = set()
        self._queue: asyncio.Queue[tuple[Message, asyncio.Future[None]]] = asyncio.Queue()

    def submit(self, message: Message) -> asyncio.Future[None]:
        """Queue a message; the future is done when it is stored or given up."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((message, done))
        return done

    def replace(self, message: Message) -> None:
        """Publish a message that replaces the earlier ones on its subject."""
        waits = message.subject in self._newest
        self._newest[message.subject] = message
        if not waits:
            task = asyncio.create_task(self._publish_newest(message.subject))
            self._replacing.add(task)
            task.add_done_callback(self._replacing.discard)

    async def _publish_newest(self, subject: str) -> None:
        published = None
        while (message := self._newest[subject]) is not published:
            await self._publish_with_retries(message)
            published = message
        del self._newest[subject]

    async def run(self) -> None:
        """Publish until cancelled. The order of arrival may differ: readers go by the index in each message."""
        pending: set[asyncio.Task[None]] = set()
        while True:
            message, done = await self._queue.get()
            task = asyncio.create_task(self._publish_and_report(message, done))
            pending.add(task)
            task.add_done_callback(pending.discard)
            if len(pending) >= _CONCURRENCY:
                await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)

    async def _publish_and_report(self, message: Message, done: asyncio.Future[None]) -> None:
        await self._publish_with_retries(message)
        with contextlib.suppress(asyncio.InvalidStateError):
            done.set_result(None)

    async def _publish_with_retries(self, message: Message) -> None:
        for attempt in range(_TRIES):
            try:
                await self._publish(message)
                break
            except PenstockError as error:
                if attempt == _TRIES - 1 or not isinstance(error, UnavailableError):
                    run_id, key, _ = message.attempt
                    self._warn("message not stored", subject=message.subject, run=run_id, step=key, error=str(error))
                    break
                await asyncio.sleep(0.2 * 2**attempt)
