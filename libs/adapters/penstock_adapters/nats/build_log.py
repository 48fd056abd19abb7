"""The log of builds in the stream BUILDS: `requested`, `finished` and what is between them, under one prefix.

Facts are append-once. `finished` is also how a build is cancelled: its builder follows it, and stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import pydantic

from penstock_adapters.nats.bus import WRONG_LAST, Bus, BusError
from penstock_contracts import subjects
from penstock_contracts.builds import BuildRequested
from penstock_contracts.environments import EnvironmentFinished, EnvironmentLog, EnvironmentRequested
from penstock_core import git_sources
from penstock_core.environments.declaration import EnvironmentDeclaration
from penstock_core.errors import UnavailableError
from penstock_core.git_sources import GitSource

_INTERVAL = 0.2
_BATCH = 50
"""Lines in one message of a log; with lines of the longest, it is smaller than the limit of most servers."""

_LINE = 2000
"""Characters of a line that are stored."""

_MOST_LINES = 20_000
"""Lines of one build that are stored; a build script can print without end."""

_REQUESTS = 20
"""Tries to append a request among others for the same source."""

T = TypeVar("T")
M = TypeVar("M", bound=pydantic.BaseModel)


async def append(bus: Bus, subject: str, fact: pydantic.BaseModel) -> bool:
    """Append a fact of a build; return False if its subject has one already, which counts."""
    try:
        headers = {"Nats-Expected-Last-Subject-Sequence": "0"}
        await bus.publish(subject, fact.model_dump_json().encode(), headers)
    except BusError as error:
        if error.code != WRONG_LAST:
            raise
        return False
    return True


async def read(bus: Bus, subject: str, model: type[M]) -> M | None:
    """Return the fact on a subject; None if there is none, or it is unreadable."""
    last = await bus.last(subjects.BUILDS, subject)
    if last is None:
        return None
    with contextlib.suppress(pydantic.ValidationError):
        return model.model_validate_json(last.data)
    return None


async def until_finished(bus: Bus, prefix: str, work: Coroutine[Any, Any, T]) -> T | None:
    """Do the work of a build. If somebody else ends the build meanwhile, the work is cancelled and this returns None.

    Args:
        bus: the connection.
        prefix: of the subjects of the build.
        work: the work.
    """
    task = asyncio.ensure_future(work)
    ended = asyncio.Event()

    async def end(message: object) -> None:
        ended.set()

    try:
        # A message of a stream also reaches those who subscribed to its subject; one before is found by reading.
        subscription = await bus.subscribe(f"{prefix}.finished", end)
        try:
            if await bus.last(subjects.BUILDS, f"{prefix}.finished") is not None:
                return None
            waiting = asyncio.ensure_future(ended.wait())
            try:
                await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()
            return task.result() if task.done() else None
        finally:
            await subscription.unsubscribe()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


class BuildLines:
    """Publishes the lines that a build prints, several at a time."""

    def __init__(self, bus: Bus, subject: str) -> None:
        self._bus = bus
        self._subject = subject
        self._lines: list[str] = []
        self._count = 0
        self._task: asyncio.Task[None] | None = None

    def add(self, line: str) -> None:
        """Add a line."""
        self._count += 1
        if self._count <= _MOST_LINES:
            # Names of files that are not UTF-8 have characters that JSON has not.
            self._lines.append(line[:_LINE].encode(errors="replace").decode())
        elif self._count == _MOST_LINES + 1:
            self._lines.append(f"… only the first {_MOST_LINES} lines are stored")

    async def __aenter__(self) -> BuildLines:
        self._task = asyncio.create_task(self._publish())
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._task is not None  # noqa: S101 - it was entered
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(UnavailableError, BusError):  # a lost line harms no build
            await self._flush()

    async def _publish(self) -> None:
        while True:
            await asyncio.sleep(_INTERVAL)
            with contextlib.suppress(UnavailableError, BusError):
                await self._flush()

    async def _flush(self) -> None:
        while lines := self._lines[:_BATCH]:
            await self._bus.publish(self._subject, EnvironmentLog(lines=lines).model_dump_json().encode())
            del self._lines[: len(lines)]


class EnvironmentBuildLog:
    """The builds of declared environments in one project."""

    def __init__(self, bus: Bus, project: str) -> None:
        self._bus = bus
        self._project = project

    async def latest(self, declaration: str) -> int | None:
        """Return the number of the latest build of a declaration, by its digest."""
        subject = subjects.environment(self._project, declaration, "*", "requested")
        last = await self._bus.last(subjects.BUILDS, subject)
        return EnvironmentRequested.model_validate_json(last.data).build if last is not None else None

    async def finished(self, declaration: str, build: int) -> EnvironmentFinished | None:
        """Return how a build ended; None while it is being built."""
        subject = subjects.environment(self._project, declaration, build, "finished")
        last = await self._bus.last(subjects.BUILDS, subject)
        if last is None:
            return None
        try:
            return EnvironmentFinished.model_validate_json(last.data)
        except pydantic.ValidationError as error:
            return EnvironmentFinished(error=f"the end of the build is unreadable: {error}")

    async def request(
        self, declaration: EnvironmentDeclaration, by: str, *, refresh: bool = False
    ) -> tuple[int, EnvironmentFinished | None, bool]:
        """Return the number of the build of a declaration, how it ended, and whether it is a new one.

        A build that failed is made again.

        Args:
            declaration: what to build.
            by: the principal.
            refresh: make another build also if one has succeeded.
        """
        digest = declaration.digest()
        latest = await self.latest(digest)
        if latest is not None:
            end = await self.finished(digest, latest)
            if end is None or (end.environment is not None and not refresh):
                return latest, end, False
        build = (latest or 0) + 1
        requested = EnvironmentRequested(declaration=declaration, build=build, at=time.time(), by=by)
        new = await append(self._bus, subjects.environment(self._project, digest, build, "requested"), requested)
        return build, None if new else await self.finished(digest, build), new


class VersionBuildLog:
    """The builds of versions from Git repositories."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def request(self, project: str, source: GitSource, by: str, *, publish: bool) -> tuple[str, int, bool]:
        """Return digest and number of the build of a version, and whether it is a new one.

        An equal request whose branch or tag is not resolved yet has the same build: it will find the same commit.

        Args:
            project: of the version.
            source: where the pipeline is.
            by: the principal.
            publish: publish the version; otherwise it is an experiment.

        Raises:
            UnavailableError: other requests for the same source were always faster.
        """
        digest = source.digest(published=publish)
        for _ in range(_REQUESTS):
            subject = subjects.version_build(project, digest, "*", "requested")
            last = await self._bus.last(subjects.BUILDS, subject)
            latest = BuildRequested.model_validate_json(last.data).build if last is not None else 0
            if latest and await self._can_join(project, digest, latest, source):
                return digest, latest, False
            number = latest + 1
            requested = BuildRequested(source=source, publish=publish, build=number, at=time.time(), by=by)
            subject = subjects.version_build(project, digest, number, "requested")
            if await append(self._bus, subject, requested):
                return digest, number, True
        raise UnavailableError("too many requests build the same source at the same time: try again")

    async def _can_join(self, project: str, digest: str, number: int, source: GitSource) -> bool:
        tails = ["finished"] if git_sources.is_commit(source.ref) else ["finished", "resolved"]
        found = [subjects.version_build(project, digest, number, tail) for tail in tails]
        return not any([await self._bus.last(subjects.BUILDS, subject) for subject in found])
