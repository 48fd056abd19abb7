"""The executors that serve endpoints with mode `low_latency`, and the calls that this gateway handed to them.

Executors announce what they serve. One that is silent has lost its calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import secrets
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import pydantic
from nats.aio.msg import Msg
from structlog.typing import FilteringBoundLogger

from penstock_adapters.nats.bus import Bus
from penstock_contracts import fact_codec, subjects
from penstock_contracts.warm_calls import CallReply, Refusal, ServedEndpoint, ServedEndpoints
from penstock_core.facts import RunRequested
from penstock_gateway.endpoints.item_stream import ItemStream
from penstock_gateway.message_size import check_message_size

_SILENCE = 10.0
"""Seconds without an announcement after which an executor counts as gone."""


@dataclass(slots=True, eq=False)
class WarmExecutor:
    """An executor as it announced itself last, and the calls that it has of this gateway."""

    name: str
    at: float = 0.0
    served: list[ServedEndpoint] = field(default_factory=list[ServedEndpoint])
    calls: dict[str, asyncio.Future[CallReply] | ItemStream] = field(
        default_factory=dict[str, "asyncio.Future[CallReply] | ItemStream"]
    )


class WarmExecutors:
    """See the module.

    Attributes:
        known: the executors by name.
        changed: set, and replaced, when an executor announces itself.
    """

    def __init__(self, bus: Bus, log: FilteringBoundLogger) -> None:
        self.known: dict[str, WarmExecutor] = {}
        self.changed = asyncio.Event()
        self._bus = bus
        self._log = log
        self._inbox = f"_INBOX.calls.{secrets.token_hex(8)}"
        self._numbers = itertools.count(1)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen to executors."""
        await self._bus.subscribe(subjects.SERVED_ENDPOINTS, self._announced)
        await self._bus.subscribe(f"{self._inbox}.*.*", self._replied)
        self._task = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Stop. Calls that were not answered are refused."""
        if self._task is not None:
            self._task.cancel()
        for name in [*self.known]:
            self._lose(name, "the gateway stops")

    async def send(self, executor: WarmExecutor, served: ServedEndpoint, run: RunRequested) -> CallReply:
        """Hand a run to an executor, and return its reply.

        Raises:
            ContentTooLargeError: the request does not fit into a message.
        """
        number = str(next(self._numbers))
        future: asyncio.Future[CallReply] = asyncio.get_running_loop().create_future()
        executor.calls[number] = future
        try:
            await self._publish(executor, served, run, number, b"false")
            return await future
        finally:
            executor.calls.pop(number, None)

    @contextlib.asynccontextmanager
    async def stream(
        self, executor: WarmExecutor, served: ServedEndpoint, run: RunRequested
    ) -> AsyncGenerator[ItemStream]:
        """Hand a run to an executor, and yield the items of its output. It is cancelled unless it has ended then.

        Raises:
            ContentTooLargeError: the request does not fit into a message.
        """
        number = str(next(self._numbers))
        send = functools.partial(self._bus.send, subjects.calls(executor.name))
        items = executor.calls[number] = ItemStream(self._replies(executor, number), send)
        try:
            await self._publish(executor, served, run, number, b"true")
            yield items
        finally:
            executor.calls.pop(number, None)
            await items.close()

    def _replies(self, executor: WarmExecutor, number: str) -> str:
        """Return the subject of the replies to a call."""
        return f"{self._inbox}.{subjects.lease(executor.name)}.{number}"

    async def _publish(
        self, executor: WarmExecutor, served: ServedEndpoint, run: RunRequested, number: str, stream: bytes
    ) -> None:
        body = b'{"deployment":"%b","revision":%d,"version":%d,"stream":%b,"run":%b}' % (
            served.deployment.encode(),
            served.revision,
            served.version,
            stream,
            fact_codec.encode(run),
        )
        check_message_size(self._bus, len(body), "pass large inputs as files or artifacts")
        await self._bus.client.publish(subjects.calls(executor.name), body, reply=self._replies(executor, number))

    async def _announced(self, message: Msg) -> None:
        try:
            found = ServedEndpoints.model_validate_json(message.data)
        except pydantic.ValidationError as error:
            self._log.warning("invalid announcement of an executor", error=str(error))
            return
        executor = self.known.setdefault(found.executor, WarmExecutor(found.executor))
        executor.at, executor.served = time.monotonic(), found.endpoints
        self.changed.set()
        self.changed = asyncio.Event()

    async def _watch(self) -> None:
        """Refuse the calls of executors that are silent."""
        while True:
            await asyncio.sleep(_SILENCE / 5)
            for name, executor in [*self.known.items()]:
                if time.monotonic() - executor.at > _SILENCE:
                    self._lose(name, "its executor does not respond")

    def _lose(self, name: str, why: str) -> None:
        for waiting in self.known.pop(name).calls.values():
            if isinstance(waiting, ItemStream):
                waiting.lose(why)
            elif not waiting.done():
                waiting.set_result(CallReply(refused=Refusal.CRASHED, detail=why))

    async def _replied(self, message: Msg) -> None:
        _, _, _, holder, number = message.subject.split(".")
        executor = self.known.get(subjects.lease_holder(holder))
        future = executor.calls.get(number) if executor is not None else None
        if isinstance(future, ItemStream):
            future.put(message.data)
            return
        if future is None or future.done():
            return
        try:
            future.set_result(CallReply.model_validate_json(message.data))
        except pydantic.ValidationError as error:
            future.set_result(CallReply(refused=Refusal.CRASHED, detail=f"it sent an invalid reply: {error}"))
