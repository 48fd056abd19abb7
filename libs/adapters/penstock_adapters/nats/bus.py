"""A connection to NATS and the JetStream calls that all adapters use.

Errors: `errors.UnavailableError` where trying again may help (no answer, connection lost, no leader yet), `BusError`
for a final refusal. Nothing here retries: the callers know what is idempotent.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

import nats.errors
import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from penstock_adapters.nats import headers
from penstock_core.errors import PenstockError, UnavailableError

TIMEOUT = 5.0
LEAVE = 2.0
"""Seconds that the end of a subscription waits for the server."""

PAGE = 500
"""Maximum number of messages per batched read."""

PAGE_BYTES = 16 * 1024 * 1024
"""Maximum number of bytes per batched read. The server also ends a batch at its own limit, without an error."""

WRONG_LAST = 10071
"""Error code: another message was written to the subject meanwhile."""

_NO_MESSAGE = 10037

_NO_ROOM = (10002, 10023, 10028, 10047, 10077)
"""Error codes of a server that has no room, or whose last write failed: later it may succeed."""


class BusError(PenstockError):
    """A final refusal by JetStream. `code` is its err_code."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class LastMessage:
    """The last message on a subject: its sequence number, its body, its headers as they were sent."""

    seq: int
    data: bytes
    headers: bytes


class Bus:
    """One NATS connection, shared by all parts of a service."""

    def __init__(self, client: Client) -> None:
        headers.optimize_headers(client)
        self.client = client
        self.durable_consumers: dict[tuple[str, str], dict[str, Any]] = {}
        """Settings of the durable consumers declared on this connection, by stream and name."""
        self.unstored: dict[str, tuple[float, float, str]] = {}
        """Streams that did not confirm the last message, by the first part of its subject, or `$KV.BUCKET`: when the
        first such message was sent, when the latest one was refused, both of `time.monotonic()`, and the error."""
        self._reconnected: list[Callable[[], None]] = []

    @property
    def server_id(self) -> str:
        """Identifies the server process that this connection uses; another one after a restart."""
        return str(self.client._server_info.get("server_id", ""))  # pyright: ignore[reportPrivateUsage]

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Call `callback` after each reconnection, when the server may have lost subscriptions and requests."""
        self._reconnected.append(callback)

    def disconnected(self) -> None:
        """To be called by the connection's owner when the connection is lost: no reply to an open request will come."""
        for reply in list(self.client._resp_map.values()):  # pyright: ignore[reportPrivateUsage]
            if not reply.done():
                reply.set_exception(nats.errors.StaleConnectionError())

    def reconnected(self) -> None:
        """To be called by the connection's owner after a reconnection."""
        self.unstored.clear()  # a restarted server may store again
        for callback in self._reconnected:
            callback()

    async def request(
        self, subject: str, body: bytes = b"", *, headers: dict[str, str] | None = None, timeout: float = TIMEOUT
    ) -> Msg:
        """Send a request and wait for one reply.

        Raises:
            UnavailableError: there is no subscriber, no answer came in `timeout` seconds, or the connection is lost.
        """
        try:
            return await self.client.request(subject, body, timeout=timeout, headers=headers)
        except nats.errors.NoRespondersError as error:
            raise UnavailableError(f"there is no subscriber on {subject}") from error
        except nats.errors.MaxPayloadError as error:
            raise BusError(f"a message of {len(body)} bytes exceeds the limit of the server") from error
        except (nats.errors.TimeoutError, TimeoutError) as error:
            raise UnavailableError(f"no answer from {subject} within {timeout:g} s") from error
        except (nats.errors.Error, OSError) as error:
            raise UnavailableError(f"the connection to NATS is lost: {error or type(error).__name__}") from error

    async def api(self, verb: str, body: dict[str, Any] | None = None, timeout: float = TIMEOUT) -> dict[str, Any]:
        """Call the JetStream API, `$JS.API.{verb}`.

        Raises:
            BusError: the server refused.
            UnavailableError: no answer.
        """
        reply = await self.request(f"$JS.API.{verb}", orjson.dumps(body) if body is not None else b"", timeout=timeout)
        answer: dict[str, Any] = orjson.loads(reply.data)
        check(answer)
        return answer

    async def publish(self, subject: str, body: bytes, headers: dict[str, str] | None = None) -> dict[str, Any]:
        """Publish to a stream and wait until it is stored; returns the acknowledgement."""
        answer = await self.store(subject, body, headers)
        check(answer)
        return answer

    async def store(self, subject: str, body: bytes, headers: dict[str, str] | None = None) -> dict[str, Any]:
        """The same; returns the answer unchecked, except for those after which trying again may help."""
        first_part = ".".join(subject.split(".", 2)[:2]) if subject.startswith("$KV.") else subject.partition(".")[0]
        sent = time.monotonic()
        try:
            answer: dict[str, Any] = orjson.loads((await self.request(subject, body, headers=headers)).data)
            if "error" in answer:
                with contextlib.suppress(BusError):
                    check(answer)
        except UnavailableError as error:
            first, _, _ = self.unstored.get(first_part, (sent, sent, ""))
            why = str(error).replace(subject, "nats-server")  # so that all processes report the same problem
            self.unstored[first_part] = (first, time.monotonic(), why)
            raise
        self.unstored.pop(first_part, None)
        return answer

    async def send(self, subject: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        """Publish without waiting for anything, such as a part of a batch whose end is confirmed.

        Raises:
            BusError: the message exceeds the limit of the server.
            UnavailableError: the connection is lost.
        """
        try:
            await self.client.publish(subject, body, headers=headers)
        except nats.errors.MaxPayloadError as error:
            raise BusError(f"a message of {len(body)} bytes exceeds the limit of the server") from error
        except (nats.errors.Error, OSError) as error:
            raise UnavailableError(f"the connection to NATS is lost: {error or type(error).__name__}") from error

    async def last(self, stream: str, subject: str) -> LastMessage | None:
        """The last message on a subject, asked of the stream's leader.

        Unlike a direct get, which any replica may answer, it is as new as the last write that was acknowledged.
        """
        try:
            answer = (await self.api(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject}))["message"]
        except BusError as error:
            if error.code == _NO_MESSAGE:
                return None
            raise
        return LastMessage(
            answer["seq"], base64.b64decode(answer.get("data", "")), base64.b64decode(answer.get("hdrs", ""))
        )

    async def holds(self, stream: str, seq: int) -> bool:
        """Whether the stream's leader has the message with a sequence number."""
        try:
            await self.api(f"STREAM.MSG.GET.{stream}", {"seq": seq})
        except BusError as error:
            if error.code == _NO_MESSAGE:
                return False
            raise
        return True

    async def next_seq(self, stream: str, subject: str, after: int) -> int | None:
        """The sequence of the next message on `subject` (wildcards allowed) above `after`, asked of the leader."""
        try:
            found = await self.api(f"STREAM.MSG.GET.{stream}", {"seq": after + 1, "next_by_subj": subject})
        except BusError as error:
            if error.code == _NO_MESSAGE:
                return None
            raise
        return int(found["message"]["seq"])

    async def direct_get(self, stream: str, query: dict[str, Any], timeout: float = TIMEOUT) -> list[Msg]:
        """A batched direct get; returns its messages, which carry `Nats-Subject`, `Nats-Sequence`, `Nats-Time-Stamp`.

        The last messages of many subjects (`multi_last`) are complete, however large they are.

        Raises:
            UnavailableError: the answer was not complete in time.
            BusError: the server refused the query.
        """
        found, end = await self._page(stream, query, timeout)
        while "multi_last" in query and end.get("Nats-Num-Pending", "0") != "0":
            rest = {"seq": int(end["Nats-Last-Sequence"]) + 1, "up_to_seq": int(end["Nats-UpTo-Sequence"])}
            page, end = await self._page(stream, query | rest, timeout)
            found += page
        return found

    async def read(self, stream: str, subject: str, after: int = 0) -> list[Msg]:
        """All messages of a stream on `subject` (wildcards allowed) with a sequence above `after`, in order."""
        return [message async for page in self.pages(stream, subject, after) for message in page]

    async def pages(self, stream: str, subject: str, after: int = 0) -> AsyncGenerator[list[Msg]]:
        """The same in pages, for callers that process them one by one.

        Messages that are stored while this reads are not awaited: the reader of a busy stream would never end. Pages of
        the "next message" kind have no limit on how many subjects match, unlike `multi_last`. A page that is not full
        need not be the last one: it may have reached the limit of bytes.
        """
        seq, remaining = after + 1, None
        while remaining is None or remaining > 0:
            page, end = await self._page(stream, {"seq": seq, "batch": PAGE, "next_by_subj": subject}, TIMEOUT)
            if not page:
                return
            yield page
            pending = int(end.get("Nats-Num-Pending", "0"))
            remaining = min(pending, pending if remaining is None else remaining - len(page))
            seq = int((page[-1].headers or {})["Nats-Sequence"]) + 1

    async def _page(self, stream: str, query: dict[str, Any], timeout: float) -> tuple[list[Msg], dict[str, str]]:
        """One batched direct get: its messages, and the headers of the closing message."""
        inbox = self.client.new_inbox()
        found: list[Msg] = []
        end: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()

        # A callback: `next_msg` needs a task and a turn of the event loop for each message.
        async def receive(message: Msg) -> None:
            if end.done():
                return
            try:
                if is_end(message):
                    end.set_result(message.headers or {})
                else:
                    found.append(message)
            except (BusError, UnavailableError) as error:
                end.set_exception(error)

        try:
            subscription = await self.subscribe(inbox, receive)
            try:
                body = orjson.dumps({"max_bytes": PAGE_BYTES, **query})
                await self.client.publish(f"$JS.API.DIRECT.GET.{stream}", body, reply=inbox)
                async with asyncio.timeout(timeout):
                    return found, await end
            finally:
                await subscription.unsubscribe()
        except TimeoutError as error:
            raise UnavailableError(f"stream {stream} did not answer a read within {timeout:g} s") from error
        except (nats.errors.Error, OSError) as error:
            raise UnavailableError(f"the connection to NATS is lost: {error or type(error).__name__}") from error

    async def subscribe(self, subject: str, callback: Callable[[Msg], Any], queue: str = "") -> Subscription:
        """Subscribe with an async callback and no client-side limits on what is pending."""
        return await self.client.subscribe(
            subject, queue=queue, cb=callback, pending_msgs_limit=-1, pending_bytes_limit=-1
        )

    async def leave(self, subscription: Subscription) -> None:
        """End a subscription; when this returns, its callback has got all messages that were in flight.

        `drain` alone does not promise that: its PING overtakes the UNSUB, which waits in the client's buffer.
        """
        try:
            if self.client.is_connected:
                await self.client._send_unsubscribe(subscription._id)  # pyright: ignore[reportPrivateUsage]
                await self.request("$JS.API.INFO", timeout=LEAVE)
                async with asyncio.timeout(LEAVE):
                    await subscription.drain()
        except (UnavailableError, BusError, nats.errors.Error, TimeoutError, OSError):
            pass  # messages in flight are redelivered
        finally:
            with contextlib.suppress(nats.errors.Error, OSError):
                await subscription.unsubscribe()


def is_end(message: Msg) -> bool:
    """Whether a message of a batched direct get closes the batch.

    Raises:
        BusError: the server refused the query.
    """
    status = (message.headers or {}).get("Status")
    if status in ("204", "404"):
        return True
    if status is not None:
        description = (message.headers or {}).get("Description", "")
        if status == "503":
            raise UnavailableError("the stream has no leader")
        raise BusError(f"JetStream refused the read: {status} {description}")
    return False


def check(answer: dict[str, Any]) -> None:
    """Raise the error of a JetStream answer, if there is one."""
    error = answer.get("error")
    if error:
        if error.get("code") == 503 or error.get("err_code") in _NO_ROOM:
            raise UnavailableError(f"JetStream: {error.get('description')}")
        raise BusError(f"JetStream: {error.get('description')}", int(error.get("err_code", 0)))
