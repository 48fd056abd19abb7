"""What holds objects of the artifact store: whatever is named in a stream of the platform, and all that those name.

A message is not decoded: everything in it that looks like a SHA-256 counts as named. So facts of later versions,
events, schedules and models hold what they name without anything here knowing them, and nothing is missed; what is
held too much are a few objects at most. Of archived runs, the fact in the log tells what their archive names.

Not asked are streams whose names hold nothing: what steps print, results that the cache remembers (it asks whether
their artifacts are there), and marks of sweepers.
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
from penstock_core import folders
from penstock_core.errors import PenstockError
from penstock_core.facts import RunArchived
from penstock_core.ports import ArtifactStore

_WITHOUT_REFERENCES = {
    subjects.LOGS,
    subjects.PARKED,
    subjects.METRICS,
    f"KV_{subjects.CACHE_BUCKET}",
    f"KV_{subjects.MARKS_BUCKET}",
    f"KV_{subjects.LIMITS_BUCKET}",
    f"KV_{subjects.RETENTION_BUCKET}",
    f"KV_{subjects.TOKENS_BUCKET}",
}
_STREAM_NOT_FOUND = 10059
_UNPACKED = 256 * 1024 * 1024
_HEAD = b'{"version":'
"""How the manifest of a folder begins."""

_KEPT = 100_000


class References:
    """What is named: `retained` by what stays, `freed` only by runs that go, each with its pipeline."""

    def __init__(self) -> None:
        self.retained: set[bytes] = set()
        self.freed: dict[bytes, str] = {}
        self.archives: set[str] = set()
        """Runs whose archives were asked."""
        self.busy_since = float("inf")
        """When the oldest attempt that is under way was asked for, in Unix seconds."""

    def add(self, sha256: str, pipeline: str | None) -> None:
        """An object is named; `pipeline` is that of a run that goes, None for what stays."""
        key = bytes.fromhex(sha256)
        if pipeline is None:
            self.retained.add(key)
        else:
            self.freed.setdefault(key, pipeline)


class Roots:
    """Finds what is named. What folders name is remembered: objects never change."""

    def __init__(self, bus: Bus, store: ArtifactStore, archiver: Archiver) -> None:
        self._bus = bus
        self._followers = Followers(bus)
        self._store = store
        self._archiver = archiver
        self._folders: dict[bytes, tuple[str, ...]] = {}

    async def find(self, going: Mapping[str, str], over: set[str]) -> References:
        """All that is named.

        Args:
            going: runs that go, each with its pipeline.
            over: runs that are over, whose attempts write nothing any more.

        Raises:
            Unavailable: something could not be read to its end: nothing may be swept.
            ArtifactError: an archive or the manifest of a folder cannot be read.
        """
        named = References()
        attempts: dict[str, float] = {}
        for stream in (settings["name"] for settings in streams()):
            if stream not in _WITHOUT_REFERENCES:
                await self._scan(stream, named, going, over, attempts)
        async for fact in self._archiver.noted():
            await self._archive(fact, named, going.get(fact.run_id))
        named.busy_since = min(attempts.values(), default=float("inf"))
        return named

    async def _scan(
        self, stream: str, named: References, going: Mapping[str, str], over: set[str], attempts: dict[str, float]
    ) -> None:
        try:
            async with self._followers.follow(stream, [">"], name="roots") as follower:
                async for items in follower.read_to_end():
                    for item in items:
                        await self._take(stream, item, named, going)
                        if stream == subjects.RUNS:
                            _follow_attempt(item, over, attempts)
        except BusError as error:
            if error.code != _STREAM_NOT_FOUND:
                raise

    async def _take(self, stream: str, item: StreamMessage, named: References, going: Mapping[str, str]) -> None:
        data, pipeline = item.data, None
        if stream == subjects.RUNS:
            pipeline = going.get(item.subject.split(".", 3)[2])
            if item.subject.endswith(".archived"):
                fact = fact_codec.decode(item.subject, data)
                if isinstance(fact, RunArchived):
                    await self._archive(fact, named, pipeline)
                    return
        elif stream == f"KV_{subjects.VERSIONS_BUCKET}":
            data = _unpacked(data)
        await self._message(data, named, pipeline)

    async def _message(self, data: bytes, named: References, pipeline: str | None) -> None:
        found = digests(data)
        for sha256 in found:
            named.add(sha256, pipeline)
        if mentions_folder_manifest(data):
            for sha256 in found:
                await self._folder(sha256, named, pipeline)

    async def _archive(self, fact: RunArchived, named: References, pipeline: str | None) -> None:
        if fact.run_id in named.archives:
            return  # it was in the log, and is noted in the store as well
        named.archives.add(fact.run_id)
        named.add(fact.history.sha256, pipeline)
        if fact.output is not None:
            named.add(fact.output.sha256, pipeline)
        if fact.digests is None:
            async for part in self._archiver.archives.history(fact):
                for line in part.splitlines():
                    await self._message(line, named, pipeline)
            return
        for sha256 in fact.digests:
            named.add(sha256, pipeline)
        for sha256 in fact.folders:
            await self._folder(sha256, named, pipeline)

    async def _folder(self, sha256: str, named: References, pipeline: str | None) -> None:
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
            named.add(part, pipeline)

    async def _parts(self, sha256: str) -> tuple[str, ...] | None:
        """What a manifest names; nothing when the object is none; None when it is not there."""
        if await self._store.stat(sha256) is None:
            return None
        head = b"".join([chunk async for chunk in self._store.open(sha256, 0, len(_HEAD))])
        if head != _HEAD:
            return ()
        # One byte more than it may have tells what is too large, without an error of the store.
        data = b"".join([chunk async for chunk in self._store.open(sha256, 0, folders.MANIFEST_LIMIT + 1)])
        try:
            return tuple(folders.decode(data).objects())
        except PenstockError:
            return ()


def _follow_attempt(item: StreamMessage, over: set[str], attempts: dict[str, float]) -> None:
    """Keep in `attempts` those that may be writing: they were asked for and have no end."""
    parts = item.subject.split(".")
    if len(parts) < 7 or parts[3] != "step" or parts[2] in over:
        return
    attempt = ".".join(parts[2:6])
    if parts[6] == "requested":
        attempts[attempt] = item.at
    elif parts[6] == "finished":
        attempts.pop(attempt, None)


def _unpacked(data: bytes) -> bytes:
    """A version as text; numbers of versions lie in the same bucket as they are."""
    try:
        return zlib.decompressobj().decompress(data, _UNPACKED)
    except zlib.error:
        return data
