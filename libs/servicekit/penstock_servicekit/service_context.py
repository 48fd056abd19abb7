"""What a service is given: its connection, its log, and the way to set aside what it cannot use."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
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


class Service(Protocol):
    """A running part of the platform."""

    async def start(self) -> None:
        """Begin to work; returns when it does."""
        ...

    async def stop(self) -> None:
        """Finish or hand back what is held, then return."""
        ...

    def ready(self) -> bool:
        """Whether it can serve now."""
        ...


@runtime_checkable
class StatusReporter(Protocol):
    """A part that has more to tell than whether it is ready."""

    def about(self) -> dict[str, Any]:
        """What operators may want to know, as JSON data."""
        ...


@dataclass(frozen=True, slots=True)
class ServiceContext:
    """What every service is built with. `name` tells it apart from other replicas in events and logs."""

    service: str
    bus: Bus
    broker: NatsBroker
    log: FilteringBoundLogger
    name: str
    fail: Callable[[str], object] = lambda why: None
    """Ends the process, for whoever supervises it to start it anew."""

    def task(self, loop: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a loop that the service cannot do without: when it fails, so does the process, and nothing hangs."""

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                self.log.error("a loop failed", loop=repr(task.get_coro()), exc_info=error)
                self.fail(f"{self.service} failed: {error!r}")

        task = asyncio.create_task(loop)
        task.add_done_callback(ended)
        return task

    async def park(self, subject: str, body: bytes, error: str, seq: int = 0) -> None:
        """Set a message aside with the reason, so that nothing is dropped in silence."""
        self.log.error("message parked", subject=subject, seq=seq, error=error)
        parked = Parked(
            service=self.service,
            subject=subject,
            seq=seq,
            error=error[:2000],
            body=base64.b64encode(body[: 64 * 1024]).decode(),
        )
        headers = {"Nats-Msg-Id": f"{self.service}:{subject}:{seq}"} if seq else None
        try:
            await self.bus.publish(f"parked.{self.service}", parked.model_dump_json().encode(), headers)
        except (UnavailableError, BusError) as reason:
            self.log.warning("a parked message could not be stored", subject=subject, seq=seq, error=str(reason))

    async def answer(
        self, subject: str, model: type[pydantic.BaseModel], handle: Callable[[Any], Awaitable[pydantic.BaseModel]]
    ) -> None:
        """Answer requests on `subject` with core NATS, one replica each; used where FastStream is not wanted."""

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
    """A name for this replica: service, host and something that differs between processes."""
    return f"{service}-{socket.gethostname()[:40]}-{suffix}"
