"""`access.TokenStore` in a bucket.

Keys: `by-name.{name}` holds the token's record, `by-name.{endpoint}.{name}` that of a token of an endpoint;
`by-digest.{digest}` holds the rest of that key. A token is accepted only while
both exist: what a crash leaves half done is not accepted, and `revoke` removes it.
"""

from __future__ import annotations

import dataclasses

import orjson
import pydantic

from penstock_adapters.nats.buckets.kv import Bucket, Entry
from penstock_adapters.nats.bus import Bus
from penstock_contracts import subjects
from penstock_core.access import AccessToken
from penstock_core.errors import PenstockError

_TOKEN = pydantic.TypeAdapter(AccessToken)


class NatsTokens:
    """Tokens; reads see every acknowledged write, so a revoked token is refused at once."""

    def __init__(self, bus: Bus) -> None:
        self._bucket = Bucket(bus, subjects.TOKENS_BUCKET)

    async def find(self, digest: str) -> AccessToken | None:
        """See the port."""
        named = await self._bucket.get_fresh(f"by-digest.{digest}")
        entry = await self._bucket.get_fresh(f"by-name.{named.value.decode()}") if named is not None else None
        return _read(entry) if entry is not None else None

    async def list(self, endpoint: str = "") -> list[AccessToken]:
        """See the port."""
        found = await self._bucket.list(f"by-name.{_path('*', endpoint)}")
        return sorted((_read(entry) for entry in found), key=lambda token: token.name)

    async def create(self, token: AccessToken) -> bool:
        """See the port."""
        record = orjson.dumps(dataclasses.asdict(token))
        path = _path(token.name, token.endpoint)
        if await self._bucket.put(f"by-name.{path}", record, revision=0) is None:
            return False
        await self._bucket.put(f"by-digest.{token.digest}", path.encode())
        return True

    async def revoke(self, name: str, endpoint: str = "") -> bool:
        """See the port."""
        path = _path(name, endpoint)
        entry = await self._bucket.get_fresh(f"by-name.{path}")
        if entry is None:
            return False
        await self._bucket.purge(f"by-digest.{_read(entry).digest}")
        await self._bucket.purge(f"by-name.{path}")
        return True


def _path(name: str, endpoint: str) -> str:
    return f"{endpoint}.{name}" if endpoint else name


def _read(entry: Entry) -> AccessToken:
    try:
        return _TOKEN.validate_json(entry.value)
    except pydantic.ValidationError as error:
        raise PenstockError(f"the stored token {entry.key!r} is unreadable: {error}") from error
