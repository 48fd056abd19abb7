"""The runner's connection to NATS: requests to the executor, and messages for the streams LOGS and METRICS.

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
    """A connection, for one attempt at a time.

    Args:
        urls: URLs of the NATS servers.
        token: token, if the URLs contain no credentials.
        pool: pool of the executors.
        attempt: the attempt.
    """

    def __init__(self, urls: list[str], token: str | None, pool: str, attempt: AttemptKey) -> None:
        self._urls = urls
        self._token = token
        self._pool = pool
        self.attempt = attempt
        """The attempt that requests are about."""
        self._client = Client()

    async def connect(self, patience: float = PATIENCE) -> None:
        """Connect; tries again while no server answers.

        Raises:
            UnavailableError: none answered for `patience` seconds.
        """
        deadline = _now() + patience
        while True:
            try:
                # The random prefix keeps other clients from guessing where answers arrive.
                await self._client.connect(
                    self._urls,
                    token=self._token,
                    connect_timeout=_CONNECT_TIMEOUT,
                    allow_reconnect=True,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=1,
                    inbox_prefix=f"_INBOX.{self._client._nuid.next().decode()}",  # pyright: ignore[reportPrivateUsage]
                    error_cb=_ignore,
                )
                if self._client.is_connected:
                    return
            except (nats.errors.Error, OSError, TimeoutError) as error:
                note(f"NATS does not answer, trying again: {error or type(error).__name__}")
            if _now() > deadline:
                raise UnavailableError(f"NATS did not answer for {patience:g} s")
            self._client = Client()
            await asyncio.sleep(1.0)

    async def close(self) -> None:
        """Close the connection."""
        try:
            await asyncio.wait_for(self._client.close(), 2.0)
        except (nats.errors.Error, OSError, TimeoutError):
            return

    async def ask(self, verb: str, body: Json, patience: float = PATIENCE) -> Json:
        """Send a request to the executor and return its answer.

        Raises:
            RefusedError: the executor refuses the request, or it is too large for the server.
            UnavailableError: no executor answered for `patience` seconds.
        """
        subject = protocol.subject(self._pool, *self.attempt, verb)
        answer = await self._request(subject, json.dumps(body).encode(), {}, patience)
        if answer.get("error") is not None:
            raise RefusedError(str(answer["error"]))
        return answer

    async def serve(self, subject: str, answer: Callable[[Json], Json]) -> None:
        """Answer the requests on a subject."""

        async def receive(message: Msg) -> None:
            await message.respond(json.dumps(answer(json.loads(message.data))).encode())

        await self._client.subscribe(subject, cb=receive)

    async def announce(self, body: Json) -> None:
        """Announce this worker to all executors of the pool, without waiting for anything."""
        with contextlib.suppress(nats.errors.Error, OSError):  # the next one comes soon
            await self._client.publish(protocol.announcements(self._pool), json.dumps(body).encode())

    async def publish(self, message: Message) -> None:
        """Store a message in its stream.

        Raises:
            RefusedError: the server refuses it.
            UnavailableError: no server answered.
        """
        headers = {"Nats-Msg-Id": message.message_id} | ({"Nats-Rollup": "sub"} if message.latest else {})
        answer = await self._request(message.subject, message.body, headers, PATIENCE)
        if "error" in answer:
            raise RefusedError(str(answer["error"].get("description")))

    async def _request(self, subject: str, body: bytes, headers: dict[str, str], patience: float) -> Json:
        deadline, pause, noted = _now() + patience, _FIRST_PAUSE, False
        for number in itertools.count(1):
            if number > 1:
                headers = {**headers, protocol.TRY: str(number)}
            try:
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


def note(text: str) -> None:
    """Write a line to the log of the container, for operators."""
    print(f"[penstock] {text}", file=sys.stderr, flush=True)  # noqa: T201


def _is_unavailable(answer: Json) -> bool:
    """Whether an answer says to ask again: of an executor, or of JetStream without a leader."""
    error = answer.get("error")
    return answer.get("unavailable") is True or (isinstance(error, dict) and error.get("code") == 503)


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _ignore(_: Exception) -> None:
    """Errors of the connection show in the requests."""
