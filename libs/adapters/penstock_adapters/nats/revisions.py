"""Append facts of one decision to a log of numbered facts: all of them, or none."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from penstock_adapters.nats.bus import Bus, BusError, check

_TAKEN = (10071, 10164)
_HEADERS = 2048


@dataclass(frozen=True, slots=True)
class Message:
    """A fact to append: its subject, body and headers."""

    subject: str
    body: bytes
    headers: dict[str, str]


async def append_all(bus: Bus, messages: Sequence[Message]) -> bool:
    """Append messages to subjects that must be empty, as one atomic batch; False when a subject is taken.

    Raises:
        UnavailableError: the server did not confirm; reading the log shows whether they were written.
        BusError: a final refusal, for example because a message is too large.
    """
    limit = bus.client.max_payload - _HEADERS
    for message in messages:
        if len(message.body) > limit:
            raise BusError(f"a fact of {len(message.body)} bytes exceeds the limit of the server ({limit})")
    batch = secrets.token_hex(12)
    last = len(messages)
    for n, message in enumerate(messages[:-1], 1):
        await bus.send(message.subject, message.body, _headers(message, batch, n))
    final = messages[-1]
    headers = _headers(final, batch, last) | {"Nats-Batch-Commit": "1"} if last > 1 else _headers(final)
    reply = await bus.request(final.subject, final.body, headers=headers)
    answer: dict[str, Any] = orjson.loads(reply.data)
    if int(answer.get("error", {}).get("err_code", 0)) in _TAKEN:
        return False
    check(answer)
    return True


def _headers(message: Message, batch: str = "", n: int = 0) -> dict[str, str]:
    expected = {**message.headers, "Nats-Expected-Last-Subject-Sequence": "0"}
    return {**expected, "Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(n)} if batch else expected
