"""HTTP connections that cannot exhaust the process: a cap on their number, and time limits.

Each connection uses a file descriptor, even without a token. The cap leaves descriptors for the rest of the process. At
the cap, the oldest connection without a request in progress is closed for a new one; if all have one, the new one is
answered with 503.

Headers must arrive in time. A client that does not read must not keep what is buffered for it: closing a connection
waits until that is sent, so responses that a client does not read in time abort it (`abort_connection`). Whatever the
response is, a connection is aborted if its client reads nothing for `UNREAD_TIMEOUT` seconds while data waits for it.
"""

from __future__ import annotations

import asyncio
import resource
from typing import Any, ClassVar, cast

from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_TIMEOUT = 10.0
"""Seconds in which the headers of a request must be complete."""

UNREAD_TIMEOUT = 300.0
"""Seconds in which a client must read something of what waits for it; streams of runs and events have a shorter one."""

_ABORT = "abort_connection"
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
    unread_timeout: ClassVar[float] = UNREAD_TIMEOUT
    opened: float
    """Loop time at which the connection was accepted; missing if it was not."""

    _header_timer: asyncio.TimerHandle | None = None
    _unread_timer: asyncio.TimerHandle | None = None

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
        self.app_state = {**self.app_state, _ABORT: transport.abort}  # a part of the scope of each request
        super().connection_made(transport)
        self._watch_header()

    def data_received(self, data: bytes) -> None:
        """Pass data on; a request whose headers are not complete is limited in time."""
        if hasattr(self, "opened"):
            super().data_received(data)
            self._watch_header()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        for timer in (self._header_timer, self._unread_timer):
            if timer is not None:
                timer.cancel()
        if hasattr(self, "opened"):
            super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Note that the client does not read as fast as responses are written."""
        super().pause_writing()
        if self._unread_timer is None:
            self._watch_unread()

    def resume_writing(self) -> None:
        """Note that the client has read most of it."""
        super().resume_writing()
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

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

    def _watch_unread(self, before: int | None = None) -> None:
        """Look at what the client has not read, again and again; abort if it is not less than `before`."""
        unread = self.transport.get_write_buffer_size()
        if before is not None and unread >= before:
            self.transport.abort()
        else:
            self._unread_timer = self.loop.call_later(self.unread_timeout, self._watch_unread, unread)


def abort_connection(scope: Scope) -> None:
    """Close the connection of a request at once, and drop what its client has not read."""
    abort = scope.get("state", {}).get(_ABORT)
    if abort is not None:
        abort()


def protocol(limit: int) -> type[LimitedConnection]:
    """Return the protocol for uvicorn with a cap."""
    return type("LimitedConnection", (LimitedConnection,), {"limit": limit})
