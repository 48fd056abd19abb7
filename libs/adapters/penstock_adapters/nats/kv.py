"""Key-value buckets, as streams (NATS ADR-8), with the three calls needed here: read, list, write if unchanged.

Listing is one batched direct get, so it is a consistent answer and not a race between a snapshot and its watcher.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock_adapters.nats.bus import Bus, BusError

_WRONG_LAST = 10071
_PAGE = 500


@dataclass(frozen=True, slots=True)
class Entry:
    """A key's value and its revision (the stream sequence)."""

    key: str
    value: bytes
    revision: int


class Bucket:
    """One bucket. Keys are NATS subject tokens joined by dots."""

    def __init__(self, bus: Bus, name: str) -> None:
        self._bus = bus
        self._stream = f"KV_{name}"
        self._prefix = f"$KV.{name}."

    async def get(self, key: str) -> Entry | None:
        """The key's entry, or None when it was never written or is deleted."""
        entries = await self.list(key)
        return entries[0] if entries else None

    async def list(self, pattern: str = ">") -> list[Entry]:
        """The entries whose keys match a subject pattern, oldest change first."""
        found: list[Entry] = []
        query = {"multi_last": [self._prefix + pattern], "batch": _PAGE}
        while True:
            messages = await self._bus.direct_get(self._stream, query)
            for message in messages:
                headers = message.headers or {}
                if headers.get("KV-Operation") in ("DEL", "PURGE"):
                    continue
                key = headers["Nats-Subject"].removeprefix(self._prefix)
                found.append(Entry(key, message.data, int(headers["Nats-Sequence"])))
            if len(messages) < _PAGE:
                return found
            query["seq"] = int((messages[-1].headers or {})["Nats-Sequence"]) + 1

    async def put(self, key: str, value: bytes, revision: int | None = None) -> int | None:
        """Write a key; with `revision` only when that is still its revision (0: it was never written).

        Returns:
            The new revision, or None when the key has changed meanwhile.
        """
        headers = {} if revision is None else {"Nats-Expected-Last-Subject-Sequence": str(revision)}
        try:
            answer = await self._bus.publish(self._prefix + key, value, headers)
        except BusError as error:
            if error.code == _WRONG_LAST:
                return None
            raise
        return int(answer["seq"])

    async def delete(self, key: str) -> None:
        """Delete a key; a marker stays, so that watchers learn of it."""
        await self._bus.publish(self._prefix + key, b"", {"KV-Operation": "DEL"})
