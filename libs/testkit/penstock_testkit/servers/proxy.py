"""A TCP proxy in front of a server, which breaks connections on demand and counts bytes."""

from __future__ import annotations

import asyncio
import contextlib


class Proxy:
    """A TCP proxy in front of a server. Each number in `cuts` breaks one connection after that many bytes."""

    def __init__(self, endpoint: str) -> None:
        """Proxy the server at `endpoint`, such as `http://127.0.0.1:9000`."""
        self._host, _, port = endpoint.removeprefix("http://").partition(":")
        self._port = int(port)
        self._own = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.cuts: list[int] = []
        self.passed = 0
        """Bytes transferred in both directions."""

    @property
    def endpoint(self) -> str:
        """URL of the proxy; unchanged by `stop` and `start`."""
        return f"http://127.0.0.1:{self._own}"

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._own)
        self._own = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and break all connections."""
        assert self._server is not None
        self._server.close()
        self.close_idle()
        await asyncio.sleep(0.05)

    def close_idle(self) -> None:
        """Break all connections."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def __aenter__(self) -> Proxy:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection(self._host, self._port)
        left = [self.cuts.pop(0) if self.cuts else 1 << 60]
        both = {writer, to_writer}
        self._writers |= both
        pumps = [self._pump(reader, to_writer, left), self._pump(to_reader, writer, left)]
        await asyncio.gather(*pumps)
        for one in both:
            one.transport.abort()
        self._writers -= both

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: list[int]) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(64 * 1024):
                left[0] -= len(data)
                self.passed += len(data)
                if left[0] < 0:
                    break
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
