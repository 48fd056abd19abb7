"""The token store of a gateway: found tokens are kept for half a second, and their use is recorded once a minute."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Mapping

from penstock_core.access import AccessToken, TokenStore
from penstock_core.errors import PenstockError
from penstock_servicekit.service_context import ServiceContext

FRESH = 0.5
"""Seconds for which a found token is not looked up again: another gateway may have revoked it meanwhile."""

_RECORD_EVERY = 60.0
_LIMIT = 10_000


class CachedTokens:
    """A `TokenStore` on top of another one. A token that this gateway revokes is refused at once."""

    def __init__(self, store: TokenStore, context: ServiceContext) -> None:
        self._store = store
        self._context = context
        self._found: OrderedDict[str, tuple[AccessToken, float]] = OrderedDict()
        self._used: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to record the use of tokens."""
        self._task = self._context.task(self._record_regularly())

    async def close(self) -> None:
        """Record the use of tokens for the last time."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._context.bus.client.is_connected:
            await self._record()

    async def find(self, digest: str) -> AccessToken | None:
        """See the port. The token existed at most `FRESH` seconds ago."""
        known = self._found.get(digest)
        now = time.monotonic()
        if known is None or now - known[1] > FRESH:
            token = await self._store.find(digest)
            if token is None:
                self._found.pop(digest, None)
                return None
            known = self._found[digest] = token, now
            self._found.move_to_end(digest)
            if len(self._found) > _LIMIT:
                self._found.popitem(last=False)
        token, used_at = known[0], time.time()
        if not token.expired(used_at):
            self._used[token.full_name] = used_at
        return token

    async def get(self, name: str) -> AccessToken | None:
        """See the port."""
        return await self._store.get(name)

    async def list(self, endpoint: str = "") -> list[AccessToken]:
        """See the port."""
        return await self._store.list(endpoint)

    async def create(self, token: AccessToken) -> bool:
        """See the port."""
        return await self._store.create(token)

    async def revoke(self, name: str, endpoint: str = "") -> bool:
        """See the port."""
        try:
            return await self._store.revoke(name, endpoint)
        finally:
            self._found.clear()

    async def last_used(self) -> Mapping[str, float]:
        """See the port; includes what this gateway has not stored yet."""
        return {**await self._store.last_used(), **self._used}

    async def record_use(self, full_name: str, at: float) -> None:
        """See the port."""
        await self._store.record_use(full_name, at)

    async def _record_regularly(self) -> None:
        while True:
            await asyncio.sleep(_RECORD_EVERY)
            await self._record()

    async def _record(self) -> None:
        used, self._used = self._used, {}
        try:
            for full_name, at in used.items():
                await self._store.record_use(full_name, at)
        except PenstockError as error:
            self._used = used | self._used
            self._context.log.warning("the last use of tokens is not recorded; trying again", error=str(error))
