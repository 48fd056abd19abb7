"""Idle connections cost the gateway nothing that requests need: a cap, and a time limit for headers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from gateway_platform import Http, running

from penstock_gateway.http.connections import LimitedConnection

LIMIT = 20


@asynccontextmanager
async def idle(port: int, count: int, data: bytes = b"") -> AsyncGenerator[list[asyncio.StreamReader]]:
    """Connections that send `data` and nothing else."""
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(count)]
    try:
        for _, writer in opened:
            writer.write(data)
        yield [reader for reader, _ in opened]
    finally:
        for _, writer in opened:
            writer.transport.abort()


async def closed(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(60):
            return await reader.read() == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("data", [b"", b"GET /v1/runs HTTP/1.1\r\nHost: "])
async def test_a_request_takes_the_place_of_the_oldest_idle_connection(tmp_path: Path, data: bytes) -> None:
    async with (
        running(tmp_path, max_connections=LIMIT) as platform,
        idle(platform.gateway.port, 2 * LIMIT, data) as all_,
    ):
        assert all([await closed(reader) for reader in all_[:LIMIT]])
        for _ in range(3):
            assert (await Http(platform)("GET", "/v1/runs")).status == 200


async def test_a_connection_without_complete_headers_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LimitedConnection, "header_timeout", 0.2)
    async with (
        running(tmp_path) as platform,
        idle(platform.gateway.port, 2) as silent,
        idle(platform.gateway.port, 2, b"GET / HTTP/1.1\r\nX: ") as slow,
    ):
        assert all([await closed(reader) for reader in [*silent, *slow]])
        assert (await Http(platform)("GET", "/v1/runs")).status == 200
