"""Pipeline versions in their bucket: keys, encoding, and reading.

Keys: `{project}.{pipeline}.{n}` holds version n, compressed; `{project}.{pipeline}.highest` and
`{project}.{pipeline}.by-digest.{digest}` hold a number; `{project}.{pipeline}.published` holds `Publications`;
`interpreters.{digest}` holds `InterpreterHints` of an environment, and `locks.{digest}` the lock of one, compressed.
Versions are immutable, so readers cache them.

An unreadable value costs its own entry only: an unreadable version is listed apart, an unreadable number or list of
publications counts as missing, so that the builder writes it again.
"""

from __future__ import annotations

import contextlib
import zlib
from collections import OrderedDict
from typing import TypeVar

import pydantic

from penstock_adapters.nats.buckets.kv import Bucket, Entry
from penstock_adapters.nats.bus import Bus
from penstock_adapters.shared_reads import SharedReads
from penstock_contracts import subjects
from penstock_contracts.commands import InterpreterHints, Publications, Version
from penstock_core.environments import lock
from penstock_core.environments.lock import EnvironmentLock, InvalidLockError
from penstock_core.errors import PenstockError

LIMIT = 900 * 1024
"""Largest compressed version in bytes: it must fit a message of a server with default limits."""

_UNPACKED_LIMIT = 256 * 1024 * 1024
_KEPT = 256

M = TypeVar("M", bound=pydantic.BaseModel)


class UnreadableVersionError(PenstockError):
    """A stored version cannot be read."""


class VersionTooLargeError(PenstockError):
    """A pipeline has too many steps or too large constants to be stored as one version."""


def key(project: str, pipeline: str, version: int) -> str:
    """Key of a version."""
    return f"{project}.{pipeline}.{version}"


def highest_key(project: str, pipeline: str) -> str:
    """Key of the highest number up to which all versions are complete."""
    return f"{project}.{pipeline}.highest"


def published_key(project: str, pipeline: str) -> str:
    """Key of the published versions of a pipeline."""
    return f"{project}.{pipeline}.published"


def interpreters_key(digest: str) -> str:
    """Key of the interpreters that registrants had for an environment."""
    return f"interpreters.{digest}"


def lock_key(digest: str) -> str:
    """Key of the lock of an environment."""
    return f"locks.{digest}"


def pack_lock(lock: EnvironmentLock) -> bytes:
    """Encode a lock.

    Raises:
        VersionTooLargeError: it does not fit a message.
    """
    packed = zlib.compress(lock.text().encode(), 6)
    if len(packed) > LIMIT:
        raise VersionTooLargeError(f"the lock of an environment has {len(packed)} bytes; the limit is {LIMIT}")
    return packed


def unpack_lock(digest: str, data: bytes) -> EnvironmentLock:
    """Read a stored lock.

    Raises:
        UnreadableVersionError: the bytes are not the lock with this digest.
    """
    try:
        found = lock.parse(zlib.decompressobj().decompress(data, _UNPACKED_LIMIT).decode())
    except (zlib.error, UnicodeDecodeError, InvalidLockError) as error:
        raise UnreadableVersionError(f"a stored lock of an environment is unreadable: {error}") from error
    if found.digest() != digest:
        raise UnreadableVersionError(f"the stored lock {digest[:12]} has another content")
    return found


def digest_key(project: str, pipeline: str, digest: str) -> str:
    """Key of the number of the version with a digest."""
    return f"{project}.{pipeline}.by-digest.{digest}"


def pack(version: Version) -> bytes:
    """Encode a version.

    Raises:
        VersionTooLargeError: it does not fit a message.
    """
    packed = zlib.compress(version.model_dump_json().encode(), 6)
    if len(packed) > LIMIT:
        raise VersionTooLargeError(
            f"pipeline {version.name!r} has {len(packed)} bytes when compressed; the limit is {LIMIT}: "
            f"pass large constants as files or artifacts, or split the pipeline"
        )
    return packed


def unpack(data: bytes) -> Version:
    """Read a stored version.

    Raises:
        UnreadableVersionError: the bytes are not a version.
    """
    try:
        text = zlib.decompressobj().decompress(data, _UNPACKED_LIMIT)
        return Version.model_validate_json(text)
    except (zlib.error, pydantic.ValidationError) as error:
        raise UnreadableVersionError(f"a stored pipeline version is unreadable: {error}") from error


def read_number(entry: Entry | None) -> int | None:
    """Return the number that an entry holds; None if it holds none."""
    return int(entry.value) if entry is not None and entry.value.isdigit() and len(entry.value) < 16 else None


def read_publications(entry: Entry | None) -> Publications | None:
    """Return the publications that an entry holds; None if it holds none."""
    return _read(Publications, entry)


def read_interpreters(entry: Entry | None) -> InterpreterHints:
    """Return the interpreters that an entry holds; without any if it holds none."""
    return _read(InterpreterHints, entry) or InterpreterHints()


def _read(model: type[M], entry: Entry | None) -> M | None:
    if entry is None:
        return None
    with contextlib.suppress(pydantic.ValidationError):
        return model.model_validate_json(entry.value)
    return None


class Versions:
    """Reads versions and caches the latest ones."""

    def __init__(self, bus: Bus) -> None:
        self._bucket = Bucket(bus, subjects.VERSIONS_BUCKET)
        self._reads = SharedReads(self._bucket.get)
        self._kept: OrderedDict[str, Version] = OrderedDict()
        bus.on_reconnect(self._kept.clear)  # the server may have lost versions, whose numbers are given again then

    async def get(self, project: str, pipeline: str, version: int) -> Version | None:
        """A version, or None when there is none of that number.

        Raises:
            UnreadableVersionError: the stored bytes are not a version.
        """
        name = key(project, pipeline, version)
        kept = self._kept.get(name)
        if kept is not None:
            self._kept.move_to_end(name)
            return kept
        entry = await self._bucket.get(name)
        if entry is None:
            return None
        found = unpack(entry.value)
        self._kept[name] = found
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return found

    async def latest(self, project: str, pipeline: str) -> int | None:
        """The number of the version that was published last, or None when none is published."""
        published = await self.published(project, pipeline)
        return published.latest if published else None

    async def published(self, project: str, pipeline: str) -> Publications | None:
        """The published versions of a pipeline, or None when there are none."""
        return read_publications(await self._reads.get(published_key(project, pipeline)))

    async def is_experiment(self, project: str, pipeline: str, version: int) -> bool:
        """Whether a version is not published now. That of scripts never is."""
        published = await self.published(project, pipeline)
        return published is None or version not in published.versions

    async def exists(self, project: str, pipeline: str) -> bool:
        """Whether a pipeline has any version, published or not."""
        return await self._bucket.get(highest_key(project, pipeline)) is not None

    async def list(self, project: str, pipeline: str | None = None) -> tuple[list[Version], list[str]]:
        """All versions of a project, or of one of its pipelines, oldest first; and unreadable ones as `train v3`."""
        found: list[Version] = []
        unreadable: list[str] = []
        for entry in await self._bucket.list(f"{project}.{pipeline or '*'}.*"):
            _, name, number = entry.key.split(".")
            if number.isdecimal():
                try:
                    found.append(unpack(entry.value))
                except UnreadableVersionError:
                    unreadable.append(f"{name} v{number}")
        return found, unreadable

    async def publications(self, project: str, pipeline: str | None = None) -> dict[str, Publications]:
        """The published versions of a project's pipelines, or of one of them, by name of the pipeline."""
        entries = await self._bucket.list(f"{project}.{pipeline or '*'}.published")
        found = {entry.key.split(".")[1]: read_publications(entry) for entry in entries}
        return {name: published for name, published in found.items() if published is not None}

    async def lock(self, digest: str) -> EnvironmentLock | None:
        """The lock of an environment, or None.

        Raises:
            UnreadableVersionError: it is damaged.
        """
        entry = await self._bucket.get(lock_key(digest))
        return unpack_lock(digest, entry.value) if entry is not None else None

    async def keep_lock(self, lock: EnvironmentLock) -> None:
        """Store the lock of an environment. Storing it again is safe."""
        await self._bucket.put(lock_key(lock.digest()), pack_lock(lock), 0)

    async def interpreters(self, digest: str) -> InterpreterHints:
        """Where registrants had an environment installed."""
        return read_interpreters(await self._bucket.get(interpreters_key(digest)))
