"""The builder: makes immutable, numbered pipeline versions.

In: a compiled pipeline, its source bundle's digest, its environment. Out: a version number, and one event a version.

Promises: equal content has one number and a number one content, whichever replicas register at the same time and
wherever one of them is killed. The number is taken by creating its key; the other keys only point to it, and whoever
finds them missing puts them there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Protocol

import orjson

from penstock_adapters.nats import versions
from penstock_adapters.nats.kv import Entry
from penstock_adapters.nats.versions import VersionTooLarge
from penstock_contracts.commands import RegisterVersion, Version, VersionReply
from penstock_core import ir
from penstock_core.errors import DefinitionError, PenstockError

_TRIES = 50


class Store(Protocol):
    """The bucket of versions."""

    async def get(self, key: str) -> Entry | None:
        """The entry of a key."""
        ...

    async def put(self, key: str, value: bytes, revision: int | None = None) -> int | None:
        """Write a key, with `revision` only if that is still its revision; None when it is not."""
        ...


class Edges(Protocol):
    """What else the builder asks of its surroundings."""

    async def has_artifact(self, sha256: str) -> bool:
        """Whether the artifact store has an object."""
        ...

    async def announce(self, version: Version) -> None:
        """Publish that a version was registered; saying it twice is harmless."""
        ...


class BuilderService:
    """Registers versions."""

    def __init__(self, store: Store, edges: Edges, clock: Callable[[], float]) -> None:
        self._store = store
        self._edges = edges
        self._clock = clock

    async def register(self, command: RegisterVersion) -> VersionReply:
        """Give a pipeline its version number; what is wrong with it is said in the reply.

        Raises:
            Unavailable: a part of the platform did not answer; registering again is safe.
        """
        try:
            ir.check(command.pipeline)
            if not await self._edges.has_artifact(command.source):
                return VersionReply(error=f"the source bundle {command.source[:12]} was not uploaded")
            return await self._number(command, digest(command))
        except (VersionTooLarge, DefinitionError) as error:
            return VersionReply(error=str(error))

    async def _number(self, command: RegisterVersion, content: str) -> VersionReply:
        project, name = command.project, command.pipeline.name
        known = await self._store.get(versions.digest_key(project, name, content))
        if known is not None:
            return VersionReply(version=int(known.value))
        latest = await self._store.get(versions.latest_key(project, name))
        number = (int(latest.value) if latest else 0) + 1
        for _ in range(_TRIES):
            version = Version(
                project=project,
                name=name,
                version=number,
                digest=content,
                source=command.source,
                environment=command.environment,
                git=command.git,
                pipeline=command.pipeline,
                registered_at=self._clock(),
            )
            created = await self._store.put(versions.key(project, name, number), versions.pack(version), 0) is not None
            if not created:
                # The number is taken: by the same content (another replica, or our own try before a crash) or not.
                taken = await self._store.get(versions.key(project, name, number))
                if taken is None or versions.unpack(taken.value).digest != content:
                    await self._point(project, name, number)
                    number += 1
                    continue
            await self._store.put(versions.digest_key(project, name, content), str(number).encode(), 0)
            await self._point(project, name, number)
            await self._edges.announce(version)
            return VersionReply(version=number, created=created)
        raise PenstockError(f"no version number of {name!r} was free in {_TRIES} tries: try again")

    async def _point(self, project: str, name: str, number: int) -> None:
        """Have `latest` be at least `number`."""
        key = versions.latest_key(project, name)
        while True:
            latest = await self._store.get(key)
            if latest is not None and int(latest.value) >= number:
                return
            if await self._store.put(key, str(number).encode(), latest.revision if latest else 0) is not None:
                return


def digest(command: RegisterVersion) -> str:
    """SHA-256 over what makes a version what it is: the IR, the source bundle and the environment."""
    content = [command.pipeline, command.source, command.environment.digest, command.environment.python]
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()
