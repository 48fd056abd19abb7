"""Streams of items: which format a request gets, and what a gateway does with the replies of an executor."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from penstock_contracts.warm_calls import Refusal
from penstock_core.fork_server_protocol import STREAM_WINDOW
from penstock_gateway.endpoints import stream_formats
from penstock_gateway.endpoints.item_stream import ItemStream
from penstock_gateway.endpoints.stream_formats import Format
from penstock_gateway.http.problems import RequestError


@pytest.mark.parametrize(
    ("accept", "found"),
    [
        (None, None),
        ("", None),
        ("*/*", None),
        ("application/json", None),
        ("text/html, text/event-stream", Format.EVENTS),
        ("text/event-stream", Format.EVENTS),
        ("application/x-ndjson; charset=utf-8", Format.LINES),
        ("application/json, text/event-stream", None),
        ("application/json;q=0.5, Text/Event-Stream", Format.EVENTS),
        ("text/event-stream;q=0.1, application/x-ndjson;q=0.2", Format.LINES),
        ("text/event-stream;q=0", None),
        ("text/event-stream;q=x", Format.EVENTS),
    ],
)
def test_the_format_that_a_request_prefers(accept: str | None, found: Format | None) -> None:
    assert stream_formats.requested(accept, True, "e") is found


def test_only_a_request_that_accepts_nothing_else_is_refused() -> None:
    for accept in (None, "*/*", "text/event-stream, */*;q=0.1", "application/json"):
        assert stream_formats.requested(accept, False, "e") is None
    with pytest.raises(RequestError) as refused:
        stream_formats.requested("text/event-stream", False, "e")
    assert (refused.value.status_code, "cannot stream" in refused.value.detail) == (406, True)


class Executor:
    """Sends replies, and keeps what the gateway says."""

    def __init__(self) -> None:
        self.said: list[Any] = []
        self.stream = ItemStream("reply", self._send)
        self.first = 0
        self.sent = 0

    async def _send(self, body: bytes) -> None:
        self.said.append(orjson.loads(body))

    def items(self, *items: Any, size: int = 1) -> None:
        self.sent += size
        self.stream.put(orjson.dumps({"items": items, "first": self.first, "sent": self.sent}))
        self.first += len(items)

    async def read(self, seconds: float = 10.0, pause: float = 10.0) -> list[Any]:
        deadline = asyncio.get_running_loop().time() + seconds
        return [item async for part in self.stream.parts(deadline, pause) for item in part]


async def test_items_and_the_end() -> None:
    executor = Executor()
    executor.items("a", "b")
    executor.items("c")
    executor.stream.put(b'{"end": {"outcome": "succeeded"}}')
    assert await executor.read() == ["a", "b", "c"]
    assert executor.stream.end is not None
    await executor.stream.close()
    assert executor.said == []


async def test_items_are_confirmed_when_the_client_has_them() -> None:
    executor = Executor()
    for n in range(4):
        executor.items(n, size=STREAM_WINDOW // 4)
    parts = executor.stream.parts(asyncio.get_running_loop().time() + 10, 10)
    assert await anext(parts) == [0]
    assert executor.said == []
    assert await anext(parts) == [1]
    assert executor.said == [{"received": ["reply", STREAM_WINDOW // 4]}]
    await parts.aclose()
    await executor.stream.close()
    await executor.stream.close()
    assert executor.said[1:] == [{"cancel": "reply"}]


async def test_a_gap_ends_the_stream() -> None:
    executor = Executor()
    executor.items("a")
    executor.first += 1
    executor.items("c")
    assert await executor.read() == ["a"]
    assert executor.stream.end is not None
    assert (executor.stream.end.refused, "lost" in executor.stream.end.detail) == (Refusal.CRASHED, True)
    await executor.stream.close()
    assert executor.said == [{"cancel": "reply"}]


async def test_a_stream_ends_at_its_deadline_and_pauses_are_seen() -> None:
    executor = Executor()
    loop = asyncio.get_running_loop()
    parts = executor.stream.parts(loop.time() + 0.2, 0.01)
    assert await anext(parts) == []
    with pytest.raises(TimeoutError):
        async for _ in parts:
            pass
    executor.stream.lose("its executor does not respond")
    assert await executor.read() == []
