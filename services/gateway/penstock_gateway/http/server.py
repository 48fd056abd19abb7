"""The HTTP server in the event loop of the service."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator

import uvicorn

from penstock_core.errors import PenstockError


class ListenError(PenstockError):
    """The gateway cannot listen on its address; the message says why and what to do."""


class Server(uvicorn.Server):
    """uvicorn without its signal handlers, which belong to the process, and without its ten wake-ups a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self._stopping = asyncio.Event()

    def shut_down(self) -> None:
        """Start to stop."""
        self.should_exit = True
        self._stopping.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals to the process."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start up, and set `listening`."""
        await super().startup(sockets)
        self.listening.set()

    async def main_loop(self) -> None:
        """Tick once a second, for the date header, until `shut_down`."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._stopping.wait()


def bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to an address.

    Raises:
        ListenError: the port is in use or the address does not belong to this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.setblocking(False)
        except OSError:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:
        raise ListenError(
            f"cannot listen on {host}:{port} ({getattr(error, 'strerror', None) or error}): "
            "another program may use the port; choose one with --port or PENSTOCK_PORT (0 chooses a free one)"
        ) from error
    return listener
