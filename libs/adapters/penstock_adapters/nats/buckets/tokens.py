"""`access.TokenStore` in a bucket.

Keys, for the token `ci` or the token `web` of the endpoint `nightly` in the project `default`:

- `by-digest.{digest}`: the record. The token is accepted exactly while this key exists.
- `by-name.ci`, `by-name.default.nightly.web`: the record, written after the first key and deleted after it. So a name
  that is listed can be revoked, and what a crash leaves half done is a token that nobody knows or that is no longer
  accepted.
- `used.ci`, `used.default.nightly.web`: when it was used last.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

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
        entry = await self._bucket.get_fresh(f"by-digest.{digest}")
        return _read(entry) if entry is not None else None

    async def get(self, name: str) -> AccessToken | None:
        """See the port."""
        entry = await self._bucket.get_fresh(f"by-name.{name}")
        return _read(entry) if entry is not None else None

    async def list(self, endpoint: str = "") -> list[AccessToken]:
        """See the port."""
        found = await self._bucket.list(f"by-name.{_path('*', endpoint)}")
        return sorted((_read(entry) for entry in found), key=lambda token: token.name)

    async def create(self, token: AccessToken) -> bool:
        """See the port."""
        record = orjson.dumps(dataclasses.asdict(token))
        digest_key = f"by-digest.{token.digest}"
        await self._bucket.put(digest_key, record)
        if await self._bucket.put(f"by-name.{token.full_name.replace('/', '.')}", record, revision=0) is None:
            await self._bucket.purge(digest_key)
            return False
        return True

    async def revoke(self, name: str, endpoint: str = "") -> bool:
        """See the port."""
        path = _path(name, endpoint)
        entry = await self._bucket.get_fresh(f"by-name.{path}")
        if entry is None:
            return False
        await self._bucket.purge(f"by-digest.{_read(entry).digest}")
        await self._bucket.purge(f"by-name.{path}")
        await self._bucket.purge(f"used.{path}")
        return True

    async def last_used(self) -> Mapping[str, float]:
        """See the port."""
        found = await self._bucket.list("used.>")
        return {entry.key.removeprefix("used.").replace(".", "/"): float(entry.value) for entry in found}

    async def record_use(self, full_name: str, at: float) -> None:
        """See the port."""
        await self._bucket.put(f"used.{full_name.replace('/', '.')}", str(at).encode())


def _path(name: str, endpoint: str) -> str:
    return f"{endpoint.replace('/', '.')}.{name}" if endpoint else name


def _read(entry: Entry) -> AccessToken:
    try:
        return _TOKEN.validate_json(entry.value)
    except pydantic.ValidationError as error:
        raise PenstockError(f"the stored token {entry.key!r} is unreadable: {error}") from error
