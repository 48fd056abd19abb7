"""Takes the events that other systems publish over NATS.

Their account reaches this intake, not the stream: a message that went there directly could bear the name of the
platform as its source, or the message id of another project's event, which the stream would then drop as a duplicate.

In: requests on `published.{project}.{type}`, which publishers send to `events.{project}.{type}`. Out: the event is
stored, and acknowledged as JetStream acknowledges messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from penstock_adapters.nats.bus import BusError
from penstock_adapters.nats.event_stream import EventStream
from penstock_contracts import event_codec, subjects
from penstock_contracts.event_codec import InvalidEventError
from penstock_core import run_events
from penstock_core.deployments.events import Event
from penstock_core.errors import UnavailableError
from penstock_gateway.errors import GatewayError
from penstock_gateway.http.problems import status_of
from penstock_servicekit.service_context import ServiceContext

_AT_ONCE = 256
"""Events that are being stored at the same time; others wait in the connection."""


class NatsIntake:
    """The intake of one gateway; all gateways share the events.

    `admit` raises GatewayError if a project takes no events: it does not exist, is archived, or has used up its quota.
    """

    def __init__(self, context: ServiceContext, stream: EventStream, admit: Callable[[str], None]) -> None:
        self._context = context
        self._stream = stream
        self._admit = admit
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        """Take events from now on."""
        subject = f"{subjects.PUBLISHED}.>"
        self._subscription = await self._context.bus.subscribe(subject, self._receive, queue=self._context.service)

    async def close(self) -> None:
        """Store the events that have arrived."""
        if self._subscription is not None:
            await self._context.bus.leave(self._subscription)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5.0)

    async def _receive(self, message: Msg) -> None:
        await self._slots.acquire()
        task = asyncio.create_task(self._take(message))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()

    async def _take(self, message: Msg) -> None:
        try:
            event = _read(message)
            self._admit(event.project)
            sequence, duplicate = await self._stream.publish(event)
            answer: dict[str, Any] = {"stream": subjects.EVENTS, "seq": sequence}
            if duplicate:
                answer["duplicate"] = True
        except InvalidEventError as error:
            answer = _error(400, f"the event is invalid: {error}")
            if not message.reply:  # nobody hears of it otherwise
                await self._context.park(message.subject, message.data, str(error), headers=message.headers)
        except GatewayError as error:
            answer = _error(status_of(error) or 400, str(error))
        except UnavailableError as error:
            answer = _error(503, str(error))
        except BusError as error:
            answer = _error(400, str(error))
        if message.reply:
            try:
                await self._context.bus.send(message.reply, orjson.dumps(answer))
            except (UnavailableError, BusError) as error:
                self._context.log.warning("event not acknowledged", subject=message.subject, error=str(error))


def _read(message: Msg) -> Event:
    """Return the event of a message.

    Raises:
        InvalidEventError: it is none, or its source or type is one of the platform.
    """
    subject = f"events.{message.subject.partition('.')[2]}"
    event = event_codec.read(subject, message.headers or {}, message.data, 0.0, 0)
    if (problem := run_events.sent_problem(event, cli=False)) is not None:
        raise InvalidEventError([problem])
    return event


def _error(code: int, text: str) -> dict[str, Any]:
    return {"error": {"code": code, "err_code": 0, "description": text[:2000]}}
