"""HTTP connections that cannot exhaust the process: a cap on their number, and a time limit for headers.

Each connection uses a file descriptor, even without a token. The cap leaves descriptors for the rest of the process. At
the cap, the oldest connection without a request in progress is closed for a new one; if all have one, the new one is
answered with 503.
"""

from __future__ import annotations

import asyncio
import resource
from typing import Any, ClassVar, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_TIMEOUT = 10.0
"""Seconds in which the headers of a request must be complete."""

_LEAST, _MOST = 32, 10_000
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Length: 21\r\n\r\ntoo many connections\n"
)


def default_limit() -> int:
    """Return the default cap: half of the file descriptors that this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(_LEAST, min(_MOST, soft // 2))


class LimitedConnection(H11Protocol):
    """A connection of uvicorn with these limits."""

    limit: ClassVar[int] = _MOST
    header_timeout: ClassVar[float] = HEADER_TIMEOUT
    opened: float
    """Loop time at which the connection was accepted; missing if it was not."""

    _header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, at the cost of an idle one at the cap."""
        others = cast("set[LimitedConnection]", self.connections)
        if len(others) >= self.limit:
            idle = min((one for one in others if not one.has_request), key=lambda one: one.opened, default=None)
            if idle is None:
                transport.write(_BUSY)
                transport.close()
                return
            idle.transport.abort()
            others.discard(idle)
        self.opened = self.loop.time()
        super().connection_made(transport)
        self._watch_header()

    def data_received(self, data: bytes) -> None:
        """Pass data on; a request whose headers are not complete is limited in time."""
        if hasattr(self, "opened"):
            super().data_received(data)
            self._watch_header()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._header_timer is not None:
            self._header_timer.cancel()
        if hasattr(self, "opened"):
            super().connection_lost(exc)

    @property
    def has_request(self) -> bool:
        """Whether a request is in progress: its headers are complete, and its response is not."""
        cycle: Any = getattr(self, "cycle", None)
        return cycle is not None and not cycle.response_complete

    def _watch_header(self) -> None:
        if self.has_request:
            if self._header_timer is not None:
                self._header_timer.cancel()
                self._header_timer = None
        elif self._header_timer is None:
            self._header_timer = self.loop.call_later(self.header_timeout, self._header_timed_out)

    def _header_timed_out(self) -> None:
        self._header_timer = None
        if not self.has_request and not self.transport.is_closing():
            self.transport.close()


def protocol(limit: int) -> type[LimitedConnection]:
    """Return the protocol for uvicorn with a cap."""
    return type("LimitedConnection", (LimitedConnection,), {"limit": limit})
