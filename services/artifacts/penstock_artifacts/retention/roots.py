"""The roots of garbage collection: objects that a message in a stream refers to, and those that they refer to.

Messages are not decoded: everything in them that looks like a SHA-256 counts as a reference. So facts of later
versions, events, schedules and models protect their artifacts without any code here, at the cost of keeping a few
objects too long. The references of an archived run are in its fact `archived`.

Streams whose references protect nothing are skipped: the output of steps, the results in the cache (which checks
whether their artifacts exist), and the marks of garbage collection. So are events about finished runs: the outputs in
them are those of the runs, and are deleted with them.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from penstock_adapters.nats.bootstrap import streams
from penstock_adapters.nats.bus import Bus, BusError
from penstock_adapters.nats.follower import Followers, StreamMessage
from penstock_artifacts.retention.archiver import Archiver
from penstock_contracts import fact_codec, subjects
from penstock_contracts.archives import digests, mentions_folder_manifest
from penstock_core import run_events
from penstock_core.artifacts import folders
from penstock_core.errors import PenstockError
from penstock_core.facts import RunArchived
from penstock_core.ports import ArtifactStore

_WITHOUT_REFERENCES = {
    subjects.LOGS,
    subjects.PARKED,
    subjects.METRICS,
    subjects.AUDIT,
    subjects.NOTIFICATIONS,
    f"KV_{subjects.CACHE_BUCKET}",
    f"KV_{subjects.MARKS_BUCKET}",
    f"KV_{subjects.LIMITS_BUCKET}",
    f"KV_{subjects.RETENTION_BUCKET}",
    f"KV_{subjects.TOKENS_BUCKET}",
    f"KV_{subjects.SECRETS_BUCKET}",
    f"KV_{subjects.LEASES_BUCKET}",
    f"KV_{subjects.NOTIFICATIONS_BUCKET}",
}
_STREAM_NOT_FOUND = 10059
_UNPACKED = 256 * 1024 * 1024
_HEAD = b'{"version":'
"""First bytes of the manifest of a folder."""

_KEPT = 100_000


class References:
    """Referenced objects: `retained` by anything that stays, `freed` by deleted runs only, each with its pipeline."""

    def __init__(self) -> None:
        self.retained: set[bytes] = set()
        self.freed: dict[bytes, str] = {}
        self.archives: set[str] = set()
        """Runs whose archives were read."""
        self.busy_since = float("inf")
        """When the oldest running attempt was requested, in Unix seconds."""

    def add(self, sha256: str, pipeline: str | None) -> None:
        """Add a reference; `pipeline` is that of a deleted run, None for anything that stays."""
        key = bytes.fromhex(sha256)
        if pipeline is None:
            self.retained.add(key)
        else:
            self.freed.setdefault(key, pipeline)


class Roots:
    """Finds references. Those of folders are cached: objects are immutable."""

    def __init__(self, bus: Bus, store: ArtifactStore, archiver: Archiver) -> None:
        self._bus = bus
        self._followers = Followers(bus)
        self._store = store
        self._archiver = archiver
        self._folders: dict[bytes, tuple[str, ...]] = {}

    async def find(self, deleted: Mapping[str, str], finished: set[str]) -> References:
        """Return all references.

        Args:
            deleted: deleted runs, each with its pipeline.
            finished: finished runs, whose attempts write nothing any more.

        Raises:
            UnavailableError: something could not be read completely; nothing may be removed.
            ArtifactError: an archive or the manifest of a folder cannot be read.
        """
        references = References()
        attempts: dict[str, float] = {}
        for stream in (settings["name"] for settings in streams()):
            if stream not in _WITHOUT_REFERENCES:
                await self._scan(stream, references, deleted, finished, attempts)
        async for fact in self._archiver.noted():
            await self._archive(fact, references, deleted.get(fact.run_id))
        references.busy_since = min(attempts.values(), default=float("inf"))
        return references

    async def _scan(
        self,
        stream: str,
        references: References,
        deleted: Mapping[str, str],
        finished: set[str],
        attempts: dict[str, float],
    ) -> None:
        try:
            async with self._followers.follow(stream, [">"], name="roots") as follower:
                async for items in follower.read_to_end():
                    for item in items:
                        await self._take(stream, item, references, deleted)
                        if stream == subjects.RUNS:
                            _follow_attempt(item, finished, attempts)
        except BusError as error:
            if error.code != _STREAM_NOT_FOUND:
                raise

    async def _take(self, stream: str, item: StreamMessage, references: References, deleted: Mapping[str, str]) -> None:
        data, pipeline = item.data, None
        if stream == subjects.EVENTS and item.headers.get("ce-source") == run_events.SOURCE:
            return
        if stream == subjects.RUNS:
            pipeline = deleted.get(item.subject.split(".", 3)[2])
            if item.subject.endswith(".archived"):
                fact = fact_codec.decode(item.subject, data)
                if isinstance(fact, RunArchived):
                    await self._archive(fact, references, pipeline)
                    return
        elif stream == f"KV_{subjects.VERSIONS_BUCKET}":
            data = _unpacked(data)
        await self._message(data, references, pipeline)

    async def _message(self, data: bytes, references: References, pipeline: str | None) -> None:
        found = digests(data)
        for sha256 in found:
            references.add(sha256, pipeline)
        if mentions_folder_manifest(data):
            for sha256 in found:
                await self._folder(sha256, references, pipeline)

    async def _archive(self, fact: RunArchived, references: References, pipeline: str | None) -> None:
        if fact.run_id in references.archives:
            return  # found in the log and among the notes of the store
        references.archives.add(fact.run_id)
        references.add(fact.history.sha256, pipeline)
        if fact.output is not None:
            references.add(fact.output.sha256, pipeline)
        if fact.digests is None:
            async for part in self._archiver.archives.history(fact):
                for line in part.splitlines():
                    await self._message(line, references, pipeline)
            return
        for sha256 in fact.digests:
            references.add(sha256, pipeline)
        for sha256 in fact.folders:
            await self._folder(sha256, references, pipeline)

    async def _folder(self, sha256: str, references: References, pipeline: str | None) -> None:
        key = bytes.fromhex(sha256)
        parts = self._folders.get(key)
        if parts is None:
            parts = await self._parts(sha256)
            if parts is None:
                return
            self._folders[key] = parts
            while len(self._folders) > _KEPT:
                del self._folders[next(iter(self._folders))]
        for part in parts:
            references.add(part, pipeline)

    async def _parts(self, sha256: str) -> tuple[str, ...] | None:
        """The references of a manifest; empty when the object is none; None when it does not exist."""
        if await self._store.stat(sha256) is None:
            return None
        head = b"".join([chunk async for chunk in self._store.open(sha256, 0, len(_HEAD))])
        if head != _HEAD:
            return ()
        # One byte more than the limit shows that it is too large, without an error of the store.
        data = b"".join([chunk async for chunk in self._store.open(sha256, 0, folders.MANIFEST_LIMIT + 1)])
        try:
            return tuple(folders.decode(data).objects())
        except PenstockError:
            return ()


def _follow_attempt(item: StreamMessage, finished: set[str], attempts: dict[str, float]) -> None:
    """Maintain `attempts`: those that may be writing, as they were requested and have no end."""
    parts = item.subject.split(".")
    if len(parts) < 7 or parts[3] != "step" or parts[2] in finished:
        return
    attempt = ".".join(parts[2:6])
    if parts[6] == "requested":
        attempts[attempt] = item.at
    elif parts[6] == "finished":
        attempts.pop(attempt, None)


def _unpacked(data: bytes) -> bytes:
    """Decompress a version; the numbers of versions in the same bucket are not compressed."""
    try:
        return zlib.decompressobj().decompress(data, _UNPACKED)
    except zlib.error:
        return data
