"""`/healthz`, `/readyz` and `/metrics` of a service, on plain asyncio."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

_TEXT = b"text/plain; version=0.0.4; charset=utf-8"


class HealthServer:
    """Serves `/healthz` (the process runs) and `/readyz` (200 when all services are ready, otherwise 503).

    `about` gives status details, such as the shards of a scheduler, `problems` what an operator must know, `metrics`
    the answer to `/metrics` in Prometheus' text format.
    """

    def __init__(
        self,
        host: str,
        port: int,
        ready: Callable[[], dict[str, bool]],
        about: Callable[[], dict[str, dict[str, Any]]] = dict,
        problems: Callable[[], list[str]] = list,
        metrics: Callable[[], Awaitable[bytes]] | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._ready = ready
        self._about = about
        self._problems = problems
        self._metrics = metrics
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Listen; returns the bound port. Raises OSError when the port is taken."""
        self._server = await asyncio.start_server(self._serve, self._host, self._port)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with (
            contextlib.closing(writer),
            contextlib.suppress(TimeoutError, OSError, EOFError, asyncio.LimitOverrunError),
        ):
            async with asyncio.timeout(5):
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1] if head.count(b" ") >= 2 else b""
                if path == b"/metrics" and self._metrics is not None:
                    status, body, kind = 200, await self._metrics(), _TEXT
                else:
                    status, body, kind = *self._answer(path), b"application/json"
                writer.write(b"HTTP/1.1 %d .\r\ncontent-type: %s\r\n" % (status, kind))
                writer.write(b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body) + body)
                await writer.drain()

    def _answer(self, path: bytes) -> tuple[int, bytes]:
        if path == b"/healthz":
            return 200, orjson.dumps({"status": "ok"})
        if path == b"/readyz":
            parts = self._ready()
            ready = all(parts.values())
            return (200 if ready else 503), orjson.dumps(
                {"ready": ready, "parts": parts, "problems": self._problems(), "about": self._about()}
            )
        return 404, orjson.dumps({"title": "not found"})
