"""Ordered reading of a stream from a sequence on: stored messages, then new ones as soon as they arrive.

Each `Follower` is an ephemeral pull consumer in the server's memory. It requests the next messages only when the
previous ones were taken, so a slow reader buffers one bounded batch. After a gap, a lost consumer or a restart of the
server it creates a new consumer after the last message taken: no message is missed or repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field

import nats.errors
import orjson
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from penstock_adapters.nats.bus import Bus
from penstock_core.errors import UnavailableError

BATCH = 256
MAX_BYTES = 9 * 1024 * 1024
"""Bytes per request; above the server's largest message, so that every message fits."""

_EXPIRES = 30.0
_HEARTBEAT = 5.0
_SILENCE = 2.5 * _HEARTBEAT
_INACTIVE = 60.0
_RETRY = 0.25
_PATIENCE = 2.0
_SILENT_TAKES = 15


@dataclass(frozen=True, slots=True)
class StreamMessage:
    """A message of a stream. `pending` counts the matching messages that the stream held beyond it."""

    seq: int
    at: float
    subject: str
    data: bytes
    pending: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


class Followers:
    """Opens followers on one connection, and resets them after a reconnection."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._open: set[Follower] = set()
        bus.on_reconnect(self._reset)

    @contextlib.asynccontextmanager
    async def follow(
        self, stream: str, filters: Sequence[str], after: int = 0, name: str = "follow"
    ) -> AsyncGenerator[Follower]:
        """Follow the messages on `filters` with a sequence number above `after`; `name` begins the consumer's name.

        Raises:
            UnavailableError: the server does not answer.
            BusError: it refuses, for example because there is no such stream.
        """
        follower = Follower(self._bus, stream, filters, after, name)
        self._open.add(follower)
        try:
            await follower.open()
            yield follower
        finally:
            self._open.discard(follower)
            await follower.close()

    def _reset(self) -> None:
        for follower in self._open:
            follower.reset()


class Follower:
    """See the module. `pending` counts the messages of the stream that `take` has not returned yet."""

    def __init__(self, bus: Bus, stream: str, filters: Sequence[str], after: int, name: str = "follow") -> None:
        self.pending = 0
        self._prefix = name
        self._bus = bus
        self._stream = stream
        self._filters = list(filters)
        self._last = after
        self._items: deque[StreamMessage] = deque()
        self._left = 0
        self._expected = 1
        self._broken = False
        self._nudged = False
        self._heard = 0.0
        self._wake = asyncio.Event()
        self._name = ""
        self._subscription: Subscription | None = None

    async def open(self) -> None:
        """Create the consumer and request the first messages."""
        await self._forget()
        name = f"{self._prefix}-{secrets.token_hex(8)}"
        start = (
            {"deliver_policy": "by_start_sequence", "opt_start_seq": self._last + 1}
            if self._last
            else {"deliver_policy": "all"}
        )
        config = start | {
            "name": name,
            "ack_policy": "none",
            "filter_subjects": self._filters,
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": int(_INACTIVE * 1e9),
        }
        body = {"stream_name": self._stream, "config": config, "action": "create"}
        # Set before it exists: if this call is cancelled, `close` deletes what may have been created.
        self._name = name
        answer = await self._bus.api(f"CONSUMER.CREATE.{self._stream}.{name}", body)
        self.pending = int(answer.get("num_pending", 0))
        self._items.clear()
        self._left, self._expected = 0, 1
        self._inbox = self._bus.client.new_inbox()
        self._subscription = await self._bus.subscribe(self._inbox, self._receive)
        self._broken = False
        await self._ask()

    async def take(self, timeout: float) -> list[StreamMessage]:
        """Return the next messages, in order; waits up to `timeout` seconds for the first. Empty when none came.

        A cancelled call loses nothing. An unavailable server counts as silence.

        Raises:
            BusError: the stream cannot be followed any more, for example because it was deleted.
        """
        deadline = time.monotonic() + timeout
        self._nudged = False
        while True:
            if self._items:
                taken = list(self._items)
                self._items.clear()
                self._last = taken[-1].seq
                self.pending = taken[-1].pending
                return taken
            now = time.monotonic()
            if not self._broken and now - self._heard > _SILENCE:
                self._broken = True
            await self._recover(deadline - now)
            now = time.monotonic()
            if now >= deadline or self._nudged:
                return []
            self._wake.clear()
            if self._items or self._broken:  # it may have been reset while it recovered
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(deadline - now, _SILENCE)):
                    await self._wake.wait()

    async def read_to_end(self) -> AsyncGenerator[list[StreamMessage]]:
        """Yield what the stream has now, in parts; does not wait for messages that are purged meanwhile.

        Raises:
            UnavailableError: the server does not deliver them.
        """
        silent = 0
        while self.pending:
            items = await self.take(_PATIENCE)
            if items:
                silent = 0
                yield items
            elif await self._is_at_end():
                return
            elif (silent := silent + 1) == _SILENT_TAKES:
                raise UnavailableError(f"stream {self._stream} could not be read completely")

    async def _is_at_end(self) -> bool:
        for one in self._filters:
            if await self._bus.next_seq(self._stream, one, self._last) is not None:
                return False
        return True

    def reset(self) -> None:
        """Start again after the last message taken: the server may have lost the consumer."""
        self._broken = True
        self._wake.set()

    def nudge(self) -> None:
        """Make a waiting `take` return nothing."""
        self._nudged = True
        self._wake.set()

    async def close(self) -> None:
        """Delete the consumer."""
        await self._forget()

    async def _recover(self, time_left: float) -> None:
        """Request more messages, or create a new consumer where the old one is lost."""
        try:
            if self._broken:
                async with asyncio.timeout(max(time_left, 0.001)):
                    await self.open()
            elif self._left <= 0:
                await self._ask()
        except (UnavailableError, TimeoutError, nats.errors.Error, OSError):
            self._broken = True
            await asyncio.sleep(max(0.0, min(_RETRY, time_left)))

    async def _ask(self) -> None:
        request = {
            "batch": BATCH,
            "max_bytes": MAX_BYTES,
            "expires": int(_EXPIRES * 1e9),
            "idle_heartbeat": int(_HEARTBEAT * 1e9),
        }
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._name}"
        self._left = BATCH
        self._heard = time.monotonic()
        await self._bus.client.publish(subject, orjson.dumps(request), reply=self._inbox)

    async def _receive(self, message: Msg) -> None:
        self._heard = time.monotonic()
        status = (message.headers or {}).get("Status") if not message.data else None
        if status is not None:
            self._status(status, (message.headers or {}).get("Description", ""))
            return
        # $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<ns>.<pending>, newer servers put a
        # domain and an account hash after $JS.ACK.
        parts = message.reply.split(".")
        at = 4 if len(parts) < 11 else 6
        if len(parts) < at + 5 or self._broken:
            return
        consumer_seq = int(parts[at + 2])
        if consumer_seq != self._expected:
            self.reset()
            return
        self._expected += 1
        self._left -= 1
        seq, nanoseconds, pending = int(parts[at + 1]), int(parts[at + 3]), int(parts[at + 4])
        headers = message.headers or {}
        self._items.append(StreamMessage(seq, nanoseconds / 1e9, message.subject, message.data, pending, headers))
        self._wake.set()

    def _status(self, status: str, description: str) -> None:
        if status == "100":
            return
        # 408: the request expired. 409 has many meanings; only this one means that the consumer still exists.
        if status == "408" or "MaxBytes" in description:
            self._left = 0
        else:
            self._broken = True
        self._wake.set()

    async def _forget(self) -> None:
        subscription, self._subscription = self._subscription, None
        name, self._name = self._name, ""
        with contextlib.suppress(nats.errors.Error, OSError):
            if subscription is not None:
                await subscription.unsubscribe()
            if name:
                # Without waiting for the answer: a remaining consumer is deleted after its inactivity threshold.
                await self._bus.client.publish(f"$JS.API.CONSUMER.DELETE.{self._stream}.{name}", b"")
