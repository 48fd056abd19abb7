"""Idle connections cost the gateway nothing that requests need: a cap, and a time limit for headers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from gateway_platform import Http, running

from penstock_gateway.http.connections import LimitedConnection

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMIT = 20


@contextmanager
def idle(port: int, count: int, data: bytes = b"") -> Generator[list[socket.socket]]:
    """Connections that send `data` and nothing else."""
    with ExitStack() as stack:
        opened = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 10)) for _ in range(count)]
        for one in opened:
            one.setblocking(False)
            one.send(data)
        yield opened


async def closed(connection: socket.socket) -> bool:
    try:
        async with asyncio.timeout(60):
            return await asyncio.get_running_loop().sock_recv(connection, 1000) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("data", [b"", b"GET /v1/runs HTTP/1.1\r\nHost: "])
async def test_a_request_takes_the_place_of_the_oldest_idle_connection(tmp_path: Path, data: bytes) -> None:
    async with running(tmp_path, max_connections=LIMIT) as platform:
        with idle(platform.gateway.port, 2 * LIMIT, data) as connections:
            assert all([await closed(one) for one in connections[:LIMIT]])
            for _ in range(3):
                assert (await Http(platform)("GET", "/v1/runs")).status == 200


async def test_a_connection_without_complete_headers_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LimitedConnection, "header_timeout", 0.2)
    async with running(tmp_path) as platform:
        port = platform.gateway.port
        with idle(port, 2) as silent, idle(port, 2, b"GET / HTTP/1.1\r\nX: ") as slow:
            assert all([await closed(one) for one in [*silent, *slow]])
            assert (await Http(platform)("GET", "/v1/runs")).status == 200


async def test_a_response_that_nobody_reads_is_dropped_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LimitedConnection, "unread_timeout", 0.2)
    async with running(tmp_path) as platform:
        server = platform.gateway._server
        assert server is not None
        server.config.timeout_keep_alive = 1
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", platform.gateway.port))
            client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 40)
            buffered = 0
            async with asyncio.timeout(60):
                while not buffered or server.server_state.connections:
                    for one in server.server_state.connections:
                        buffered = max(buffered, one.transport.get_write_buffer_size())
                    await asyncio.sleep(0.01)
