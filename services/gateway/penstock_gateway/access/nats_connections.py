"""Closes the connections to NATS whose credential is no longer valid.

Level-based: every gateway compares the connections with the tokens and with the log, so it does not matter which
gateway admitted a client, or whether that one lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection, Iterable
from datetime import datetime

from nats.aio.msg import Msg

from penstock_adapters.nats.auth import accounts, admission
from penstock_adapters.nats.auth.callout import Callout, Connection
from penstock_adapters.nats.bus import BusError
from penstock_contracts import subjects
from penstock_core.errors import UnavailableError
from penstock_servicekit.service_context import ServiceContext, cancel

_OFTEN = 0.4
"""Seconds between two checks while there are connections."""

_SELDOM = 10.0
"""Seconds between two checks otherwise: another gateway may have admitted clients, and died."""

GRACE = 2.0
"""Seconds after the end of an attempt for which its runner may still get the answer to its report."""

_BATCH = 500
_TOKENS_STREAM = f"KV_{subjects.TOKENS_BUCKET}"
_TOKENS = f"$KV.{subjects.TOKENS_BUCKET}.by-digest."


class ConnectionChecks:
    """The checks of one gateway.

    Args:
        context: of the gateway.
        callout: lists and closes connections.
    """

    def __init__(self, context: ServiceContext, callout: Callout) -> None:
        self._context = context
        self._callout = callout
        self._wake = asyncio.Event()
        self._admitted_at = float("-inf")
        self._checking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Check from now on."""
        self._checking = self._context.task(self._run())

    async def close(self) -> None:
        """Stop."""
        if self._checking is not None:
            await cancel([self._checking])

    def admitted(self) -> None:
        """Note that this gateway has admitted a client."""
        if not self._is_recent():
            self._wake.set()
        self._admitted_at = time.monotonic()

    def check_soon(self) -> None:
        """Check now, because a credential was revoked."""
        self._wake.set()

    def _is_recent(self) -> bool:
        return time.monotonic() - self._admitted_at < 2 * _SELDOM

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            some = False
            try:
                some = await self._check()
            except (UnavailableError, BusError) as error:
                self._context.log.warning("connections not checked, will be retried", error=str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _OFTEN if some or self._is_recent() else _SELDOM)

    async def _check(self) -> bool:
        """Close connections; returns whether there are some."""
        publishers, runners = await asyncio.gather(
            self._callout.connections(accounts.PUBLISHERS), self._callout.connections(accounts.STEPS)
        )
        refused = await self._revoked(publishers) + await self._ended(runners)
        for one in refused:
            await self._callout.kick(one)
            self._context.log.info("NATS client disconnected: its credential is no longer valid", client=one.name)
        return bool(publishers or runners)

    async def _revoked(self, connections: Iterable[Connection]) -> list[Connection]:
        """Return the connections whose token is not stored."""
        found = [(one, f"{_TOKENS}{admission.digest_of(one.name)}") for one in connections]
        stored = {_subject(message): message for message in await self._last(_TOKENS_STREAM, {key for _, key in found})}
        missing = {key for _, key in found if key not in stored or "KV-Operation" in (stored[key].headers or {})}
        # A replica may not have a new token yet, of which the leader knows.
        revoked = {key for key in missing if await self._is_revoked(key)}
        return [one for one, key in found if key in revoked]

    async def _is_revoked(self, key: str) -> bool:
        last = await self._context.bus.last(_TOKENS_STREAM, key)
        return last is None or b"KV-Operation" in last.headers

    async def _ended(self, connections: Iterable[Connection]) -> list[Connection]:
        """Return the connections of attempts that have ended some time ago."""
        found = [
            (one, subjects.finished(*attempt))
            for one in connections
            if (attempt := admission.attempt_of(one.name)) is not None
        ]
        ends = await self._last(subjects.RUNS, {key for _, key in found})
        late = {_subject(message) for message in ends if time.time() - _stored_at(message) > GRACE}
        return [one for one, key in found if key in late]

    async def _last(self, stream: str, keys: Collection[str]) -> list[Msg]:
        """Return the last messages on subjects, of those that have one."""
        ordered = sorted(keys)
        found: list[Msg] = []
        for start in range(0, len(ordered), _BATCH):
            query = {"multi_last": ordered[start : start + _BATCH]}
            found += await self._context.bus.direct_get(stream, query)
        return found


def _subject(message: Msg) -> str:
    return (message.headers or {})["Nats-Subject"]


def _stored_at(message: Msg) -> float:
    return datetime.fromisoformat((message.headers or {})["Nats-Time-Stamp"]).timestamp()
