"""`access.Revocations` in the bucket of tokens.

Keys: `revoked.{digest}` holds when the token expires, `blocked.{digest of the name}` the record of a blocked person.
"""

from __future__ import annotations

import asyncio
import dataclasses

import orjson
import pydantic

from penstock_adapters.nats.buckets.kv import Bucket
from penstock_adapters.nats.bus import Bus
from penstock_contracts import subjects
from penstock_core.access import BlockedUser, token_digest

_USER = pydantic.TypeAdapter(BlockedUser)


class NatsRevocations:
    """Revocations; reads see every acknowledged write."""

    def __init__(self, bus: Bus) -> None:
        self._bucket = Bucket(bus, subjects.TOKENS_BUCKET)

    async def refused(self, digest: str, user: str) -> bool:
        """See the port."""
        revoked, blocked = await asyncio.gather(
            self._bucket.get_fresh(f"revoked.{digest}"), self._bucket.get_fresh(_blocked(user))
        )
        return revoked is not None or blocked is not None

    async def revoke(self, digest: str, until: float, now: float) -> None:
        """See the port. Removes what has expired meanwhile."""
        await self._bucket.put(f"revoked.{digest}", str(until).encode())
        for entry in await self._bucket.list("revoked.*"):
            if float(entry.value) < now:
                await self._bucket.purge(entry.key)

    async def is_blocked(self, user: str) -> bool:
        """See the port."""
        return await self._bucket.get_fresh(_blocked(user)) is not None

    async def block(self, user: BlockedUser) -> None:
        """See the port."""
        await self._bucket.put(_blocked(user.name), orjson.dumps(dataclasses.asdict(user)))

    async def unblock(self, user: str) -> bool:
        """See the port."""
        known = await self.is_blocked(user)
        await self._bucket.purge(_blocked(user))
        return known

    async def blocked(self) -> list[BlockedUser]:
        """See the port."""
        found = [_USER.validate_json(entry.value) for entry in await self._bucket.list("blocked.*")]
        return sorted(found, key=lambda user: user.name)


def _blocked(user: str) -> str:
    # A name may have characters that a key cannot have.
    return f"blocked.{token_digest(user)}"
