"""The builder: makes immutable, numbered pipeline versions, and publishes them.

In: a compiled pipeline, its source bundle's digest, its environment. Out: a version number, and one event a version.

Promises: equal content has one number and a number one content, each version is announced once, in order, whichever
replicas register at the same time and wherever one of them is killed. How: a number is taken by creating its key. A
version is complete when its digest points to it, it is announced, and `highest` has its number, in this order; no
number is taken before all below are complete, and a replica that finds an incomplete version completes it. A version
is published after it is complete, so `latest` never resolves to a version that cannot be read.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Callable
from typing import Any, Protocol

import pydantic

from penstock_adapters.nats.buckets import versions
from penstock_adapters.nats.buckets.kv import Entry
from penstock_adapters.nats.buckets.versions import VersionTooLargeError
from penstock_contracts.commands import (
    InterpreterHints,
    Publication,
    Publications,
    RegisterVersion,
    Version,
    VersionReply,
)
from penstock_core.errors import DefinitionError, InvalidIdError, PenstockError, UnavailableError
from penstock_core.pipeline import ir, ir_check
from penstock_core.pipeline.ir import Kind, Pipeline

_TRIES = 50
_HINTS = 8
"""Interpreters that are remembered for one environment."""

_PIPELINE = pydantic.TypeAdapter(Pipeline)


class Store(Protocol):
    """The bucket of versions."""

    async def get(self, key: str) -> Entry | None:
        """The entry of a key, as new as the last write that was answered."""
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
        """Publish that a version was registered, unless it or a later one of its pipeline was announced already."""
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
            ir_check.check(command.pipeline)
            if not await self._edges.has_artifact(command.source):
                return VersionReply(
                    error=f"the source bundle {command.source} is not in the artifact store: put it there, then "
                    "register again"
                )
            if (problem := await self._environment_problem(command)) is not None:
                return VersionReply(error=problem)
            reply = await self._number(command, digest(command))
            assert reply.version is not None  # noqa: S101 - `_number` returns a version or raises
            await self._keep_hint(command)
            published = await self._publish(command, reply.version)
            return reply.model_copy(update={"published": published})
        except (VersionTooLargeError, DefinitionError, InvalidIdError) as error:
            return VersionReply(error=str(error))

    async def _environment_problem(self, command: RegisterVersion) -> str | None:
        """Return what is wrong with the environments that a pipeline declares."""
        for name in sorted({one.environment for one in command.pipeline.steps.values() if one.environment is not None}):
            found = command.environments.get(name)
            if found is None or await self._store.get(versions.lock_key(found.digest)) is None:
                return f"environment {name!r} is not built: build it (POST /v1/environments), then register again"
        return None

    async def _number(self, command: RegisterVersion, content: str) -> VersionReply:
        project, name = command.project, command.pipeline.name
        # In this order: what others complete between the two reads has a number above `highest` and is met below.
        number = await self._highest(project, name) + 1
        known = versions.read_number(await self._store.get(versions.digest_key(project, name, content)))
        if known is not None:
            for incomplete in range(number, known + 1):
                await self._complete(project, name, incomplete)
            return VersionReply(version=known)
        for _ in range(_TRIES):
            version = Version(
                project=project,
                name=name,
                version=number,
                digest=content,
                source=command.source,
                code=command.code,
                environment=command.environment,
                environments=command.environments,
                git=command.git,
                pipeline=command.pipeline,
                registered_at=self._clock(),
                registered_by=command.by,
            )
            packed = await asyncio.to_thread(versions.pack, version)  # a large one takes its time
            if await self._store.put(versions.key(project, name, number), packed, 0) is not None:
                await self._finish(version)
                return VersionReply(version=number, created=True)
            # What took the number may be equal: by another replica, or by one that was killed before it could answer.
            if await self._complete(project, name, number) == content:
                return VersionReply(version=number)
            number += 1
        raise UnavailableError(f"no version number of {name!r} was free in {_TRIES} tries: try again")

    async def _complete(self, project: str, name: str, number: int) -> str | None:
        """Complete the version that took a number; returns its digest, None when it cannot be read."""
        entry = await self._store.get(versions.key(project, name, number))
        version: Version | None = None
        with contextlib.suppress(PenstockError):  # one that is damaged or deleted holds its number and no more
            version = await asyncio.to_thread(versions.unpack, entry.value) if entry else None
        if version is None:
            await self._point(project, name, number)
            return None
        await self._finish(version)
        return version.digest

    async def _finish(self, version: Version) -> None:
        key = versions.digest_key(version.project, version.name, version.digest)
        if await self._store.put(key, str(version.version).encode(), 0) is None:
            entry = await self._store.get(key)
            if entry is not None and versions.read_number(entry) is None:  # unreadable
                await self._store.put(key, str(version.version).encode(), entry.revision)
        await self._edges.announce(version)
        await self._point(version.project, version.name, version.version)

    async def _highest(self, project: str, name: str) -> int:
        return versions.read_number(await self._store.get(versions.highest_key(project, name))) or 0

    async def _point(self, project: str, name: str, number: int) -> None:
        """Make `highest` at least `number`."""
        key = versions.highest_key(project, name)
        while True:
            highest = await self._store.get(key)
            if (versions.read_number(highest) or 0) >= number:
                return
            if await self._store.put(key, str(number).encode(), highest.revision if highest else 0) is not None:
                return

    async def _publish(self, command: RegisterVersion, number: int) -> bool:
        """Make `number` the latest published version if that is requested; returns whether it is published."""
        key = versions.published_key(command.project, command.pipeline.name)
        for _ in range(_TRIES):
            entry = await self._store.get(key)
            before = versions.read_publications(entry)
            known = before.versions if before else {}
            if not command.publish or (before and before.latest == number):
                return number in known
            new = Publications(latest=number, versions=known | {number: Publication(at=self._clock(), by=command.by)})
            if await self._store.put(key, new.model_dump_json().encode(), entry.revision if entry else 0) is not None:
                return True
        raise UnavailableError(
            f"versions of {command.pipeline.name!r} changed too often during this request: try again"
        )

    async def _keep_hint(self, command: RegisterVersion) -> None:
        """Remember where the registrant has the environment. Another one's newer hint may win: it is only a hint."""
        if command.interpreter is None:
            return
        key = versions.interpreters_key(command.environment.digest)
        entry = await self._store.get(key)
        known = versions.read_interpreters(entry).interpreters
        if known[:1] != [command.interpreter]:
            others = [hint for hint in known if hint.python != command.interpreter.python]
            new = InterpreterHints(interpreters=[command.interpreter, *others][:_HINTS])
            await self._store.put(key, new.model_dump_json().encode(), entry.revision if entry else 0)


def digest(command: RegisterVersion) -> str:
    """SHA-256 over what identifies a version: the pipeline, the code that it imports, and the environment.

    Places in files are no part of it, also not those in `dynamic_code`: they are paths, and follow from the code. Nor
    are fields with their default, so that a version of the platform that has more fields computes the same digest.
    """
    pipeline: dict[str, Any] = _PIPELINE.dump_python(command.pipeline, mode="json")
    given = command.pipeline
    pairs = [(pipeline["steps"][name], spec) for name, spec in given.steps.items()]
    for part, of in (*pairs, *zip(pipeline["nodes"], given.nodes, strict=True), (pipeline, given)):
        for field in ("file", "line", "dynamic_code", *ir.default_fields(of)):
            part.pop(field, None)
    content = [pipeline, command.code or command.source, _environments(command)]
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _environments(command: RegisterVersion) -> str | list[object]:
    """Return what identifies the environments: that of the registrant counts only where a step runs in it."""
    functions = [spec for spec in command.pipeline.steps.values() if spec.kind is Kind.FUNCTION]
    own = command.environment.digest if any(spec.environment is None for spec in functions) or not functions else ""
    declared = {name: found.content() for name, found in command.environments.items()}
    return [own, declared] if declared else own
