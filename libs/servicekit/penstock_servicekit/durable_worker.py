"""The loop of a service that handles the messages of a durable consumer.

In: deliveries, which all replicas of the service share. Out: one call of the handler for each.

Promise: a message is acknowledged after its handler returned. A handler that raises, or a process that dies, leads to
another delivery, so handlers are idempotent. While a message waits for its handler or is handled, its deadline is
extended, however long that takes. A deleted consumer is created again (see `Puller`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from penstock_adapters.nats import consumer
from penstock_adapters.nats.bootstrap import ACK_WAIT, SECOND
from penstock_adapters.nats.bus import BusError
from penstock_adapters.nats.consumer import Delivery, Puller
from penstock_core.errors import PenstockError, UnavailableError
from penstock_servicekit.service_context import ServiceContext, cancel


class RetryLaterError(PenstockError):
    """A handler wants its message again after `delay` seconds. It is logged at `level`."""

    def __init__(self, message: str, delay: float, level: int = logging.WARNING) -> None:
        self.delay = delay
        self.level = level
        super().__init__(message)


class DurableWorker:
    """Handles the messages of one durable consumer, `concurrency` at a time; with 1, in the order of the stream.

    Args:
        context: the service that the worker is part of; it fails if the worker does.
        stream: name of the stream.
        name: name of the durable consumer, as declared in `penstock_adapters.nats.bootstrap`.
        handle: handles one delivery.
        prefetch: messages requested from the server ahead of time.
        concurrency: how many handlers run at the same time.
        retry_delay: seconds until the next delivery after a handler raised `UnavailableError` or `BusError`.
        error_delay: the same after any other exception, which is logged with its traceback.
        drain: seconds that handlers have to return when the worker stops; those that take longer are cancelled.
    """

    def __init__(
        self,
        context: ServiceContext,
        stream: str,
        name: str,
        handle: Callable[[Delivery], Awaitable[None]],
        *,
        prefetch: int = 100,
        concurrency: int = 1,
        retry_delay: float = 1.0,
        error_delay: float = 30.0,
        drain: float = 0.0,
    ) -> None:
        self._context = context
        self._name = name
        self._handle = handle
        self._prefetch = prefetch
        self._concurrency = concurrency
        self._retry_delay = retry_delay
        self._error_delay = error_delay
        self._drain = drain
        self._handling = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._queue: asyncio.Queue[Delivery] = asyncio.Queue()
        self._open: dict[int, Delivery] = {}
        self._stream = stream
        self._puller = Puller(context.bus, stream, name, self._receive)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start to request and handle messages."""
        self._puller.want(self._prefetch)
        loops = [self._puller.run(), self._extend(), *(self._work() for _ in range(self._concurrency))]
        self._tasks = [self._context.task(loop) for loop in loops]

    async def stop(self) -> None:
        """Stop. Messages that are not handled yet go to another replica, or come again later."""
        if self._drain and self._tasks:
            await self._finish_handling()
        await cancel(self._tasks)
        for delivery in self._open.values():
            await consumer.nak(self._context.bus, delivery)
        self._open.clear()
        self._queue = asyncio.Queue()

    def ready(self) -> bool:
        """Whether the loops run."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    def _receive(self, delivery: Delivery) -> None:
        self._open[id(delivery)] = delivery
        self._queue.put_nowait(delivery)

    async def _finish_handling(self) -> None:
        self._puller.want(0)
        while not self._queue.empty():
            self._queue.get_nowait()  # returned below, as all that is open
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._drain):
                await self._idle.wait()

    async def _work(self) -> None:
        while True:
            delivery = await self._queue.get()
            self._handling += 1
            self._idle.clear()
            try:
                await self._handle(delivery)
            except RetryLaterError as error:
                self._log(error.level, delivery, error)
                await consumer.nak(self._context.bus, delivery, error.delay)
            except (UnavailableError, BusError) as error:
                self._log(logging.WARNING, delivery, error)
                await consumer.nak(self._context.bus, delivery, self._retry_delay)
            except Exception as error:
                self._log(logging.ERROR, delivery, error)
                await consumer.nak(self._context.bus, delivery, self._error_delay)
            else:
                await consumer.ack(self._context.bus, delivery)
            del self._open[id(delivery)]
            self._handling -= 1
            if not self._handling:
                self._idle.set()

    async def _extend(self) -> None:
        """Extend the deadlines of messages that are not acknowledged yet."""
        while True:
            declared = self._context.bus.durable_consumers.get((self._stream, self._name), {})
            await asyncio.sleep(declared.get("ack_wait", ACK_WAIT * SECOND) / SECOND / 3)
            for delivery in list(self._open.values()):
                await consumer.in_progress(self._context.bus, delivery)

    def _log(self, level: int, delivery: Delivery, error: Exception) -> None:
        self._context.log.log(
            level,
            "message not handled, will be retried",
            consumer=self._name,
            subject=delivery.subject,
            error=str(error),
            exc_info=error if level >= logging.ERROR else None,
        )
