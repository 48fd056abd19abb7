"""`ports.Marks` in a bucket: the marks of garbage collection of an S3 store."""

from __future__ import annotations

import orjson

from penstock_adapters.nats.buckets.kv import Bucket, Entry
from penstock_adapters.nats.bus import Bus
from penstock_contracts import subjects
from penstock_core.ports import Mark


class NatsMarks:
    """Marks by digest."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._bucket = Bucket(bus, subjects.MARKS_BUCKET)

    async def get(self, sha256: str) -> Mark | None:
        """See the port."""
        entry = await self._bucket.get_fresh(sha256)
        return None if entry is None else _mark(entry)

    async def put(self, sha256: str, mark: Mark) -> Mark | None:
        """See the port."""
        body = orjson.dumps({"word": mark.word, "at": mark.at})
        revision = await self._bucket.put(sha256, body, mark.revision)
        return None if revision is None else Mark(mark.word, mark.at, revision)

    async def drop(self, sha256: str) -> None:
        """See the port."""
        await self._bucket.purge(sha256)

    async def marked(self) -> list[str]:
        """See the port."""
        return [entry.key for entry in await self._bucket.list() if _mark(entry).word == "marked"]


def _mark(entry: Entry) -> Mark:
    try:
        body = orjson.loads(entry.value)
        return Mark(body["word"], float(body["at"]), entry.revision)
    except (ValueError, KeyError, TypeError):
        # Unreadable: treated as a mark that protects the object.
        return Mark("wanted", 0.0, entry.revision)
