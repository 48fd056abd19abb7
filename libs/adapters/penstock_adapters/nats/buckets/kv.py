"""Key-value buckets, as streams (NATS ADR-8), with the three calls needed here: read, list, write if unchanged.

Listing reads the stream of the bucket, which avoids a race between a snapshot and a watcher.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import orjson

from penstock_adapters.nats.bus import WRONG_LAST, Bus, BusError


@dataclass(frozen=True, slots=True)
class Entry:
    """The value of a key and its revision (the stream sequence). `written_at` is in Unix seconds; 0 if unknown.

    Of a deleted key, the value is the one that its deletion kept.
    """

    key: str
    value: bytes
    revision: int
    written_at: float = 0.0
    deleted: bool = False


class Bucket:
    """One bucket. Keys are NATS subject tokens joined by dots."""

    def __init__(self, bus: Bus, name: str) -> None:
        self._bus = bus
        self._stream = f"KV_{name}"
        self._prefix = f"$KV.{name}."

    async def get(self, key: str) -> Entry | None:
        """The key's entry, or None when it was never written or is deleted."""
        message = await self._bus.request(
            f"$JS.API.DIRECT.GET.{self._stream}", orjson.dumps({"last_by_subj": self._prefix + key})
        )
        headers = message.headers or {}
        if "Nats-Sequence" not in headers or headers.get("KV-Operation") in ("DEL", "PURGE"):
            return None
        return Entry(key, message.data, int(headers["Nats-Sequence"]))

    async def get_fresh(self, key: str) -> Entry | None:
        """The same, at least as new as the last acknowledged write of any replica; slower."""
        last = await self._bus.last(self._stream, self._prefix + key)
        if last is None or b"KV-Operation: DEL" in last.headers or b"KV-Operation: PURGE" in last.headers:
            return None
        return Entry(key, last.data, last.seq)

    async def list(self, pattern: str = ">", *, deleted: bool = False) -> list[Entry]:
        """The entries whose keys match a subject pattern, oldest change first. With `deleted`, deleted ones, too."""
        latest: dict[str, Entry] = {}
        for message in await self._bus.read(self._stream, self._prefix + pattern):
            headers = message.headers or {}
            key = headers["Nats-Subject"].removeprefix(self._prefix)
            latest.pop(key, None)
            is_deleted = headers.get("KV-Operation") in ("DEL", "PURGE")
            written_at = datetime.fromisoformat(headers["Nats-Time-Stamp"]).timestamp()
            latest[key] = Entry(key, message.data, int(headers["Nats-Sequence"]), written_at, is_deleted)
        return [entry for entry in latest.values() if deleted or not entry.deleted]

    async def latest(self, patterns: Sequence[str]) -> list[Entry]:
        """The entries whose keys match any of several patterns, by one request.

        Raises:
            BusError: there are more than the server's limit of an answer, 1024.
        """
        query = {"multi_last": [self._prefix + pattern for pattern in patterns]}
        found: list[Entry] = []
        for message in await self._bus.direct_get(self._stream, query):
            headers = message.headers or {}
            if headers.get("KV-Operation") not in ("DEL", "PURGE"):
                key = headers["Nats-Subject"].removeprefix(self._prefix)
                found.append(Entry(key, message.data, int(headers["Nats-Sequence"])))
        return found

    async def put(self, key: str, value: bytes, revision: int | None = None) -> int | None:
        """Write a key; with `revision` only if that is its revision (0: never written).

        Returns:
            The new revision, or None when the key has changed meanwhile.
        """
        headers = {} if revision is None else {"Nats-Expected-Last-Subject-Sequence": str(revision)}
        try:
            answer = await self._bus.publish(self._prefix + key, value, headers)
        except BusError as error:
            if error.code == WRONG_LAST:
                return None
            raise
        return int(answer["seq"])

    async def delete(self, key: str, revision: int | None = None, keep: bytes = b"") -> bool:
        """Delete a key; a marker stays, so that watchers learn of it.

        Args:
            key: of the entry.
            revision: delete it only if that is its revision.
            keep: what the marker has as its value.

        Returns:
            False when the key has changed meanwhile.
        """
        headers = {"KV-Operation": "DEL"}
        if revision is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(revision)
        try:
            await self._bus.publish(self._prefix + key, keep, headers)
        except BusError as error:
            if error.code == WRONG_LAST:
                return False
            raise
        return True

    async def purge(self, key: str) -> None:
        """Purge a key with its history."""
        await self._bus.api(f"STREAM.PURGE.{self._stream}", {"filter": self._prefix + key})
