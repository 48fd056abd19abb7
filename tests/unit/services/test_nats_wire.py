"""Headers are parsed and encoded like nats-py does, but faster."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.errors import BadHeaderError

from penstock_adapters.nats.headers import header_lines, optimize_headers

pieces = st.sampled_from(
    [b"ce-id", b"Status", b":", b": ", b" ", b"\t", b"\r\n", b"\r", b"\n", b"a b", b"\xff", b"\xc3\xa9", b""]
)
names = st.text("abcXYZ019-_: \té", max_size=8)
values = st.text("abc 09.:/-é\r\n\t\xa0", max_size=12)


@given(st.lists(pieces | st.binary(max_size=4), max_size=20).map(b"".join))
def test_headers_are_parsed_like_nats_py(raw: bytes) -> None:
    assert header_lines(raw) == Client._parse_header_lines(raw)


def written(headers: dict[str, str], *, hastened: bool) -> list[bytes] | type[Exception]:
    """Return the bytes that a client would send."""
    sent: list[bytes] = []

    async def write() -> None:
        client: Any = Client()

        async def keep(command: bytes, priority: bool = False) -> None:
            sent.append(command)

        client._send_command = keep
        client._flush_queue = None
        if hastened:
            optimize_headers(client)
            optimize_headers(client)
        await client._send_publish("a.b", "reply", b"body", 4, headers)
        assert client.stats["out_msgs"] == 1 and client.stats["out_bytes"] == 4

    try:
        asyncio.run(write())
    except BadHeaderError as error:
        return type(error)
    return sent


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"ce-id": "r1.step.a[1].1.finished", "Nats-Expected-Last-Subject-Sequence": "0"},
        {"ce-source": "a: b", "x": "é"},
        {"x": " a "},
        {"x": "a\r\nInjected: b"},
        {"a": "1\r\n", "b": "2\n"},
        {"x\r\nInjected": "b"},
        {" x ": "a"},
        {"": "a"},
        {"a:b": "c"},
        {"a b": "c"},
    ],
)
def test_headers_are_encoded_like_nats_py(headers: dict[str, str]) -> None:
    assert written(headers, hastened=True) == written(headers, hastened=False)


@given(st.dictionaries(names, values, max_size=4))
def test_random_headers_are_encoded_like_nats_py(headers: dict[str, str]) -> None:
    assert written(headers, hastened=True) == written(headers, hastened=False)
