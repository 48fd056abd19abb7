"""What a service gets: its connection, its log, and the dead-letter stream."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import orjson
import pydantic
from faststream.nats import NatsBroker
from nats.aio.msg import Msg
from structlog.typing import FilteringBoundLogger

from penstock_adapters.nats.bus import Bus, BusError
from penstock_contracts.commands import Parked
from penstock_core.errors import UnavailableError
from penstock_servicekit.nats_connection import Servers


class Service(Protocol):
    """A running part of the platform."""

    async def start(self) -> None:
        """Start; returns when the service works."""
        ...

    async def stop(self) -> None:
        """Finish or hand back the messages in flight, then return."""
        ...

    def ready(self) -> bool:
        """Whether the service can work now."""
        ...


@runtime_checkable
class StatusReporter(Protocol):
    """A service that reports status details."""

    def about(self) -> dict[str, Any]:
        """Status details for operators, as JSON data."""
        ...


@dataclass(frozen=True, slots=True)
class ServiceContext:
    """What a service gets. `name` identifies this replica in events and logs."""

    service: str
    bus: Bus
    broker: NatsBroker
    log: FilteringBoundLogger
    name: str
    fail: Callable[[str], object] = lambda why: None
    """Ends the process, so that its supervisor restarts it."""
    servers: Servers | None = None
    """Where the connection is to; None if the service was given an open connection, as in tests."""

    def task(self, loop: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a loop as a task. When it fails, the process ends."""

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                self.log.error("loop failed", loop=repr(task.get_coro()), exc_info=error)
                self.fail(f"{self.service} failed: {error!r}")

        task = asyncio.create_task(loop)
        task.add_done_callback(ended)
        return task

    async def park(
        self, subject: str, body: bytes, error: str, seq: int = 0, headers: Mapping[str, str] | None = None
    ) -> None:
        """Store a message in the dead-letter stream, with the error."""
        self.log.error("message parked", subject=subject, seq=seq, error=error)
        parked = Parked(
            service=self.service,
            subject=subject,
            seq=seq,
            error=error[:2000],
            body=base64.b64encode(body[: 64 * 1024]).decode(),
            headers=dict(headers or {}),
        )
        headers = {"Nats-Msg-Id": f"{self.service}:{subject}:{seq}"} if seq else None
        try:
            await self.bus.publish(f"parked.{self.service}", parked.model_dump_json().encode(), headers)
        except (UnavailableError, BusError) as reason:
            self.log.warning("parked message not stored", subject=subject, seq=seq, error=str(reason))

    async def answer(
        self, subject: str, model: type[pydantic.BaseModel], handle: Callable[[Any], Awaitable[pydantic.BaseModel]]
    ) -> None:
        """Answer requests on `subject` without FastStream; one replica handles each."""

        async def receive(message: Msg) -> None:
            try:
                reply = await handle(model.model_validate_json(message.data))
                body = reply.model_dump_json().encode()
            except pydantic.ValidationError as error:
                body = orjson.dumps({"error": str(error)})
            await message.respond(body)

        await self.bus.subscribe(subject, receive, queue=self.service)


async def cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they ended. Their failures are ignored: `ServiceContext.task` logs them.

    Each is cancelled again until it ends, since a library may swallow a cancellation.
    """
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=1.0)


def replica_name(service: str, suffix: str) -> str:
    """Name of a replica: service, host, and a suffix that differs between processes."""
    return f"{service}-{socket.gethostname()[:40]}-{suffix}"
