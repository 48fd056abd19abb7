"""The connections of a pod to NATS: of the worker, and of each attempt with the credential of that.

Promise: while NATS or all executors are away, requests are repeated until the attempt's patience ends. All requests are
idempotent.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sys
from collections.abc import Callable
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from penstock_core import pod_protocol as protocol
from penstock_core.errors import PenstockError, UnavailableError
from penstock_core.shipping.messages import AttemptKey, Message

PATIENCE = 900.0
"""Seconds for which a request is repeated."""

_ANSWER = 3.0
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0
_CONNECT_TIMEOUT = 2
"""Seconds; with a longer one nats-py takes a slow authorization for a success."""

Json = dict[str, Any]


class RefusedError(PenstockError):
    """The platform refuses a request; asking again does not help."""


class Link:
    """A connection with one credential.

    Args:
        urls: URLs of the NATS servers.
        credential: what the servers check.
    """

    def __init__(self, urls: list[str], credential: str) -> None:
        self._urls = urls
        self._credential = credential
        self._client = Client()
        self._connected = asyncio.Event()
        self._connecting: asyncio.Task[None] | None = None

    def connect_soon(self) -> None:
        """Begin to connect. Requests wait for the connection."""
        self._connecting = asyncio.create_task(self.connect())

    async def connect(self, patience: float = PATIENCE) -> None:
        """Connect; tries again while no server answers.

        Raises:
            UnavailableError: none answered for `patience` seconds.
        """
        deadline = _now() + patience
        while True:
            try:
                await self._client.connect(
                    self._urls,
                    token=self._credential,
                    connect_timeout=_CONNECT_TIMEOUT,
                    allow_reconnect=True,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=1,
                    inbox_prefix=protocol.inbox(self._credential),
                    error_cb=_ignore,
                )
                if self._client.is_connected:
                    self._connected.set()
                    return
            except (nats.errors.Error, OSError, TimeoutError) as error:
                note(f"NATS does not answer, trying again: {error or type(error).__name__}")
            if _now() > deadline:
                raise UnavailableError(f"NATS did not answer for {patience:g} s")
            self._client = Client()
            await asyncio.sleep(1.0)

    async def close(self) -> None:
        """Close the connection."""
        if self._connecting is not None:
            self._connecting.cancel()
        if not self._connected.is_set():
            return
        try:
            await asyncio.wait_for(self._client.close(), 2.0)
        except (nats.errors.Error, OSError, TimeoutError):
            return

    async def ask(
        self, subject: str, body: bytes, headers: dict[str, str] | None = None, patience: float = PATIENCE
    ) -> Json:
        """Send a request to the executors and return the answer of one.

        Raises:
            RefusedError: the executor refuses the request, or it is too large for the server.
            UnavailableError: no executor answered for `patience` seconds.
        """
        answer = await self._request(subject, body, headers or {}, patience)
        if answer.get("error") is not None:
            raise RefusedError(str(answer["error"]))
        return answer

    async def serve(self, subject: str, answer: Callable[[Json], Json]) -> None:
        """Answer the requests on a subject."""

        async def receive(message: Msg) -> None:
            await message.respond(json.dumps(answer(json.loads(message.data))).encode())

        await self._client.subscribe(subject, cb=receive)

    async def announce(self, subject: str, body: Json) -> None:
        """Publish without waiting for anything."""
        with contextlib.suppress(nats.errors.Error, OSError):  # the next one comes soon
            await self._client.publish(subject, json.dumps(body).encode())

    async def _request(self, subject: str, body: bytes, headers: dict[str, str], patience: float) -> Json:
        deadline, pause, noted = _now() + patience, _FIRST_PAUSE, False
        for number in itertools.count(1):
            if number > 1:
                headers = {**headers, protocol.TRY: str(number)}
            try:
                if not self._connected.is_set():
                    await asyncio.wait_for(self._connected.wait(), _ANSWER)
                reply = await self._client.request(subject, body, timeout=_ANSWER, headers=headers or None)
                answer: Json = json.loads(reply.data)
                if not _is_unavailable(answer):
                    return answer
                why = str(answer["error"])
            except nats.errors.MaxPayloadError as error:
                raise RefusedError(f"a message of {len(body)} bytes exceeds the limit of the server") from error
            except (nats.errors.Error, OSError, TimeoutError) as error:
                why = str(error) or type(error).__name__
            if _now() > deadline:
                raise UnavailableError(f"no answer on {subject} for {patience:g} s: {why}")
            if not noted and pause >= _LONGEST_PAUSE:
                noted = True
                note(f"no answer on {subject}, asking again: {why}")
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        raise AssertionError("unreachable: it counts without end")


class AttemptLink:
    """The requests of the runner of one attempt.

    Args:
        link: the connection with the credential of the attempt.
        pool: pool of the executors.
        attempt: the attempt.
    """

    def __init__(self, link: Link, pool: str, attempt: AttemptKey) -> None:
        self._link = link
        self._pool = pool
        self._attempt = attempt

    async def ask(self, verb: str, body: Json, patience: float = PATIENCE) -> Json:
        """Send a request to the executor and return its answer. Raises as `Link.ask` does."""
        return await self._link.ask(self._subject(verb), json.dumps(body).encode(), patience=patience)

    async def publish(self, message: Message) -> None:
        """Have the executor store a message in its stream. Raises as `Link.ask` does."""
        kind = "progress" if message.latest else message.subject.partition(".")[0]
        await self._link.ask(self._subject(protocol.PUBLISH), message.body, {protocol.KIND: kind})

    async def close(self) -> None:
        """Close the connection."""
        await self._link.close()

    def _subject(self, verb: str) -> str:
        return protocol.subject(self._pool, *self._attempt, verb)


def note(text: str) -> None:
    """Write a line to the log of the container, for operators."""
    print(f"[penstock] {text}", file=sys.stderr, flush=True)  # noqa: T201


def _is_unavailable(answer: Json) -> bool:
    """Whether an answer says to ask again."""
    return answer.get("unavailable") is True


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _ignore(_: Exception) -> None:
    """Errors of the connection show in the requests."""
