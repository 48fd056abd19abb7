"""Pull consumers that request an exact number of messages, without polling.

`Puller` keeps `wanted` messages requested from a durable consumer at any time; messages arrive as soon as the stream
has them. Requests that the server may have lost (restart, lost connection) are repeated; requests that are no longer
wanted are withdrawn, so that the messages go to another replica at once. A deleted consumer is created again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import nats.errors
import orjson
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from penstock_adapters.nats.bootstrap import restore_consumer
from penstock_adapters.nats.bus import Bus, BusError
from penstock_core.errors import UnavailableError

_log = logging.getLogger(__name__)

EXPIRES = 25.0
"""Seconds until a request for messages expires."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message from a consumer. `consumer_seq` counts deliveries without gaps, `delivered` the deliveries of this one.

    `headers` are those of the message; `ce_type` is the type of event in them.
    """

    subject: str
    data: bytes
    stream_seq: int
    consumer_seq: int
    delivered: int
    consumer: str
    reply: str
    at: float
    ce_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


class Puller:
    """Keeps messages requested from the durable consumer `name` of `stream`.

    Args:
        bus: the connection.
        stream: name of the stream.
        name: name of the consumer; it was declared by `bootstrap` on this connection.
        receive: gets each message.
        on_lost: called when the consumer does not answer, or was deleted: a recreated one delivers messages that were
            delivered before as if for the first time.
    """

    def __init__(
        self,
        bus: Bus,
        stream: str,
        name: str,
        receive: Callable[[Delivery], None],
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._bus = bus
        self._stream = stream
        self._name = name
        self._on_lost = on_lost
        self._lost = False
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"
        self._receive = receive
        self._wanted = 0
        self._outstanding = 0
        self._heard = time.monotonic()
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._wake = asyncio.Event()
        self._pause = 0.0

    async def run(self) -> None:
        """Request and receive until cancelled; when this returns, all messages in flight have been received."""
        self._bus.on_reconnect(self._forget)
        task = asyncio.current_task()
        try:
            # The client may lose a cancellation that comes at the same moment as what it waits for.
            while task is None or not task.cancelling():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(EXPIRES / 5):
                        await self._wake.wait()
                self._wake.clear()
                if self._pause:
                    await asyncio.sleep(self._pause)
                    self._pause = 0.0
                if self._outstanding and time.monotonic() - self._heard > EXPIRES + 5.0:
                    self._outstanding = 0
                try:
                    if self._lost:
                        await self._restore()
                    await self._ask()
                except (UnavailableError, BusError, nats.errors.Error, OSError):
                    self._pause = 0.5
                    self._wake.set()
        finally:
            await self._leave()

    def want(self, count: int) -> None:
        """Keep `count` messages requested from now on. With 0, open requests are withdrawn."""
        self._wanted = count
        if count > self._outstanding or (not count and self._outstanding):
            self._wake.set()

    async def _ask(self) -> None:
        if not self._wanted and self._outstanding:
            await self._leave()
        missing = self._wanted - self._outstanding
        if missing <= 0:
            return
        if not self._inbox:
            await self._listen()
        body = orjson.dumps({"batch": missing, "expires": int(EXPIRES * 1e9)})
        await self._bus.client.publish(self._subject, body, reply=self._inbox)
        self._outstanding += missing
        self._heard = time.monotonic()

    async def _restore(self) -> None:
        self._on_lost()
        if await restore_consumer(self._bus, self._stream, self._name):
            _log.error(
                "durable consumer %s of stream %s was deleted; it has been created again", self._name, self._stream
            )
        self._lost = False

    async def _listen(self) -> None:
        if self._subscription is not None:
            # From before a reconnection. Its messages are not counted, so they must not be received.
            with contextlib.suppress(nats.errors.Error, OSError):
                await self._subscription.unsubscribe()
        self._inbox = inbox = self._bus.client.new_inbox()

        async def receive(message: Msg) -> None:
            self._message(message, inbox)

        self._subscription = await self._bus.subscribe(inbox, receive)

    async def _leave(self) -> None:
        """Withdraw requests: the server drops those whose inbox has no subscriber."""
        self._inbox = ""
        self._outstanding = 0
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await self._bus.leave(subscription)

    def _message(self, message: Msg, inbox: str) -> None:
        self._heard = time.monotonic()
        current = inbox == self._inbox
        status = (message.headers or {}).get("Status") if message.subject == inbox else None
        if status is None and message.reply:
            delivery = delivery_of(message)
            if current:  # late messages to an abandoned inbox are not counted
                self._outstanding = max(0, self._outstanding - 1)
            if delivery is not None:
                self._receive(delivery)
            if self._outstanding * 2 < self._wanted:
                self._wake.set()
            return
        if status == "100" or not current:
            return
        headers: dict[str, Any] = message.headers or {}
        pending = headers.get("Nats-Pending-Messages")
        # A request ended: with the count of messages that it did not bring, or altogether (no consumer, no leader).
        self._outstanding = max(0, self._outstanding - int(pending)) if pending else 0
        if not pending:
            self._pause = 0.25
            self._lost = status == "503" or "Deleted" in headers.get("Description", "")
        self._wake.set()

    def _forget(self) -> None:
        """After a reconnection the open requests are unknown. With another inbox none of them counts."""
        self._inbox = ""
        self._outstanding = 0
        self._wake.set()


def delivery_of(message: Msg) -> Delivery | None:
    """Read the metadata in a reply subject, `$JS.ACK.<stream>.<consumer>.<n>.<sseq>.<cseq>.<ns>.<pending>`."""
    parts = message.reply.split(".")
    if len(parts) < 9 or parts[0] != "$JS" or parts[1] != "ACK":
        return None
    if len(parts) >= 11:  # with domain and account hash
        parts = parts[:2] + parts[4:]
    return Delivery(
        subject=message.subject,
        data=message.data,
        consumer=parts[3],
        delivered=int(parts[4]),
        stream_seq=int(parts[5]),
        consumer_seq=int(parts[6]),
        at=int(parts[7]) / 1e9,
        reply=message.reply,
        ce_type=(message.headers or {}).get("ce-type", ""),
        headers=message.headers or {},
    )


async def ack(bus: Bus, delivery: Delivery) -> None:
    """Acknowledge a message. A lost acknowledgement leads to a redelivery."""
    await _respond(bus, delivery, b"+ACK")


async def in_progress(bus: Bus, delivery: Delivery) -> None:
    """Report that a message is in progress: its redelivery is postponed by another wait."""
    await _respond(bus, delivery, b"+WPI")


async def nak(bus: Bus, delivery: Delivery, delay: float = 0.0) -> None:
    """Return a message, to be redelivered after `delay` seconds."""
    body = b"-NAK" if delay <= 0 else b"-NAK " + orjson.dumps({"delay": int(delay * 1e9)})
    await _respond(bus, delivery, body)


async def _respond(bus: Bus, delivery: Delivery, body: bytes) -> None:
    with contextlib.suppress(nats.errors.Error, OSError):
        await bus.client.publish(delivery.reply, body)
