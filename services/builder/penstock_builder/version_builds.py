"""Builds versions from Git repositories: fetches a commit, compiles its pipeline, builds environments, registers it.

In: `requested` facts of builds, which the builders share. Out: `resolved`, lines of the log, `finished` once for each
build, and an event about its end.

Promises: a branch or tag is resolved to a commit before anything else, and every later try builds that commit. A
builder that is killed leaves the request unacknowledged, and another one builds it again: registering is idempotent.
Of builds of one commit, the first one makes the version, and the others refer to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pydantic

from penstock_adapters.commands import Log
from penstock_adapters.files import FolderArtifacts
from penstock_adapters.git import command
from penstock_adapters.git.checkout import Checkout
from penstock_adapters.git.command import Credentials, Git, GitError, GitLimits
from penstock_adapters.git.mirrors import Mirrors
from penstock_adapters.mirror import Mirror
from penstock_adapters.nats import build_log
from penstock_adapters.nats.bootstrap import EVENT_RETENTION
from penstock_adapters.nats.buckets.versions import Versions, VersionTooLargeError
from penstock_adapters.nats.build_log import BuildLines, EnvironmentBuildLog
from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.consumer import Delivery
from penstock_adapters.nats.event_stream import EventStream
from penstock_adapters.nats.follower import Followers
from penstock_adapters.sandbox import Sandbox
from penstock_adapters.secrets.resolver import Secrets
from penstock_adapters.transfers import TransferError
from penstock_adapters.uv import resolver
from penstock_adapters.uv.command import EnvironmentBuildError
from penstock_adapters.uv.virtual_environments import VirtualEnvironments
from penstock_builder import compilation
from penstock_builder.compilation import CompileError, Packed
from penstock_builder.service import BuilderService
from penstock_contracts import subjects
from penstock_contracts.builds import BuildFinished, BuildRequested, BuildResolved
from penstock_contracts.commands import GitInfo, LockedEnvironment, RegisterVersion, Version, VersionReply
from penstock_core import git_sources, run_events
from penstock_core.environments.declaration import EnvironmentDeclaration
from penstock_core.errors import UnavailableError
from penstock_core.git_sources import GitSource
from penstock_core.pipeline.ir import Kind, Pipeline
from penstock_core.pipeline.values import ArtifactRef, Stored
from penstock_core.secrets import references
from penstock_core.secrets.records import SecretError, SecretUser

_TRIES = 3
"""Deliveries of a build whose Git server or index does not answer, until it has failed."""

_MOST_DELIVERIES = 10
"""Deliveries until a build has failed that kills its builders."""

_EARLIER = 20
"""Earlier builds of a source that are looked at for the same commit."""

_LEFT = 86400.0
"""Seconds after which the folder of a build that was killed is removed."""

_FAULTS = (GitError, CompileError, EnvironmentBuildError, SecretError, VersionTooLargeError, TransferError)

Park = Callable[[Delivery, str], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildParts:
    """What builds of versions work with.

    Attributes:
        bus: the connection.
        followers: of streams.
        versions: reads versions and locks.
        service: registers versions.
        installed: opens the environments of this machine; each build keeps those that it uses until it has ended.
        mirrors: of repositories.
        sandbox: where pipelines are compiled.
        secrets: resolves references to secrets.
        events: where ends of builds are published.
        home: the state folder.
        git: limits of `git`.
        timeout: seconds until a build is given up.
        compile_timeout: seconds until a compilation is given up.
    """

    bus: Bus
    followers: Followers
    versions: Versions
    service: BuilderService
    installed: Callable[[], VirtualEnvironments]
    mirrors: Mirrors
    sandbox: Sandbox
    secrets: Secrets
    events: EventStream
    home: Path
    git: GitLimits
    timeout: float
    compile_timeout: float


class VersionBuilds:
    """Handles requested builds.

    Args:
        parts: what they work with.
        park: puts an unreadable request into the dead-letter stream.
    """

    def __init__(self, parts: BuildParts, park: Park) -> None:
        self._parts = parts
        self._bus = parts.bus
        self._park = park
        self._mirror = Mirror(parts.bus, parts.home)

    async def handle(self, delivery: Delivery) -> None:
        """Build a version.

        Raises:
            UnavailableError: something does not answer; the build is delivered again.
        """
        prefix = delivery.subject.removesuffix(".requested")
        try:
            request = BuildRequested.model_validate_json(delivery.data)
        except (pydantic.ValidationError, git_sources.InvalidGitSourceError) as error:
            await self._park(delivery, str(error))
            await self._append(prefix, BuildFinished(error=f"the request is unreadable: {error}"))
            return
        if await self._bus.last(subjects.BUILDS, f"{prefix}.finished") is not None:
            await self._conclude(prefix, request)  # the builder may have died before it did
            return
        if delivery.delivered > _MOST_DELIVERIES:
            why = (
                f"builders did not finish it in {_MOST_DELIVERIES} tries: they may have been killed for want of "
                "memory, see their logs"
            )
            await self._append(prefix, BuildFinished(error=why))
            await self._conclude(prefix, request)
            return
        installed = self._parts.installed()
        try:
            await self._handle(delivery, prefix, request, installed)
        finally:
            installed.release()
        await installed.remove_unused()
        await self._parts.mirrors.remove_unused()

    async def _handle(
        self, delivery: Delivery, prefix: str, request: BuildRequested, installed: VirtualEnvironments
    ) -> None:
        start = time.monotonic()
        finished: BuildFinished | None
        async with BuildLines(self._bus, f"{prefix}.log") as log:
            try:
                work = self._build(prefix, request, installed, log.add)
                finished = await build_log.until_finished(self._bus, prefix, work)
            except _FAULTS as error:
                finished = BuildFinished(error=str(error))
            except TimeoutError:
                finished = BuildFinished(
                    error=f"it was not built in {self._parts.timeout:.0f} s (PENSTOCK_BUILD_TIMEOUT)"
                )
            except UnavailableError as error:
                if delivery.delivered < _TRIES:
                    log.add(f"{error}; trying again")
                    raise
                finished = BuildFinished(error=str(error))
            except Exception as error:
                log.add(f"the builder failed ({type(error).__name__}), see its log; trying again")
                raise
        if finished is not None:  # otherwise it was cancelled
            await self._append(prefix, finished.model_copy(update={"seconds": time.monotonic() - start}))
        await self._conclude(prefix, request)

    async def _append(self, prefix: str, finished: BuildFinished) -> None:
        await build_log.append(self._bus, f"{prefix}.finished", finished.model_copy(update={"at": time.time()}))

    async def _conclude(self, prefix: str, request: BuildRequested) -> None:
        """Do what follows from the end that counts, and publish the event about it. Doing it again has no effect."""
        end = await build_log.read(self._bus, f"{prefix}.finished", BuildFinished)
        if end is None:
            raise UnavailableError(f"the end of the build at {prefix} cannot be read yet")
        await self._keep_newest(prefix, request, end)
        if end.joined is not None or end.at < time.time() - EVENT_RETENTION:
            return  # the build that makes the version has its own event
        resolved = await build_log.read(self._bus, f"{prefix}.resolved", BuildResolved)
        _, project, digest, number = prefix.split(".")
        event = run_events.version_built(
            project,
            f"{digest}/{number}",
            source=str(request.source),
            commit=resolved.commit if resolved is not None else "",
            pipeline=end.pipeline,
            version=end.version,
            error=end.error or (f"cancelled by {end.cancelled_by}" if end.cancelled_by else ""),
            seconds=end.seconds,
            at=end.at,
        )
        await self._parts.events.publish(event)

    async def _keep_newest(self, prefix: str, request: BuildRequested, end: BuildFinished) -> None:
        """Publish the version of the newest build of a source again if an older build has published after it.

        A build publishes before its end is in the log. So of builds at the same time, the one whose end comes last sees
        what all of them have published.
        """
        if end.version is None or not request.publish:
            return
        base, project = prefix.rpartition(".")[0], prefix.split(".")[1]
        latest = await self._parts.versions.latest(project, end.pipeline)
        last = await self._bus.last(subjects.BUILDS, f"{base}.*.requested")
        newest = BuildRequested.model_validate_json(last.data).build if last is not None else request.build
        for number in range(newest, max(0, request.build - 1 - _EARLIER), -1):
            found = await build_log.read(self._bus, f"{base}.{number}.finished", BuildFinished)
            if found is None or found.version is None or found.pipeline != end.pipeline:
                continue
            if number > request.build:
                if latest == end.version != found.version:
                    await self._publish(project, request, found)
                return
            if number < request.build and found.at >= request.at and latest == found.version != end.version:
                await self._publish(project, request, end)
                return

    async def _publish(self, project: str, request: BuildRequested, end: BuildFinished) -> None:
        version = await self._parts.versions.get(project, end.pipeline, end.version) if end.version else None
        if version is not None and (await self._register(version, request)).unavailable:
            raise UnavailableError(f"version {version.version} of {version.name!r} cannot be published now")

    async def _build(
        self, prefix: str, request: BuildRequested, installed: VirtualEnvironments, log: Log
    ) -> BuildFinished:
        async with asyncio.timeout(self._parts.timeout):
            project = prefix.split(".")[1]
            sessions = await self._sessions(project, request.source, log)
            commit = await self._resolve(prefix, request, sessions, log)
            if (known := await self._known(prefix, request, commit)) is not None:
                log(f"commit {commit[:12]} was built before")
                return known
            return await self._make(project, request, commit, sessions, installed, log)

    async def _sessions(
        self, project: str, source: GitSource, log: Log
    ) -> Callable[[str], AbstractAsyncContextManager[Git]]:
        """Return what prepares calls of `git`: with the credentials of the source, for its own host only."""
        credentials: Credentials | None = None
        if source.secret:
            reference = references.parse(f"{references.SCHEME}{source.secret}")
            user = SecretUser(project=project, pipeline=source.pipeline)
            secret = await self._parts.secrets.resolve(reference, user, f"the build of {source.url}")
            credentials = Credentials.of(secret.value)
        own = urlsplit(source.url)[:2]

        def session(url: str) -> AbstractAsyncContextManager[Git]:
            wanted = credentials if urlsplit(url)[:2] == own else None
            return command.session(url, self._parts.git, wanted, log)

        return session

    async def _resolve(
        self, prefix: str, request: BuildRequested, session: Callable[[str], AbstractAsyncContextManager[Git]], log: Log
    ) -> str:
        """Return the commit of a build; the first one that was found counts, also after a restart."""
        known = await build_log.read(self._bus, f"{prefix}.resolved", BuildResolved)
        if known is None:
            async with session(request.source.url) as git:
                commit = await self._parts.mirrors.resolve(git, request.source.ref)
            if not await build_log.append(self._bus, f"{prefix}.resolved", BuildResolved(commit=commit)):
                known = await build_log.read(self._bus, f"{prefix}.resolved", BuildResolved)
            known = known or BuildResolved(commit=commit)
        log(f"{request.source.ref or 'the default branch'} of {request.source.url} is commit {known.commit}")
        return known.commit

    async def _known(self, prefix: str, request: BuildRequested, commit: str) -> BuildFinished | None:
        """Return the end of this build if an earlier one has made the version of this commit, or is making it."""
        base = prefix.rpartition(".")[0]
        for number in range(request.build - 1, max(0, request.build - 1 - _EARLIER), -1):
            resolved = await build_log.read(self._bus, f"{base}.{number}.resolved", BuildResolved)
            if resolved is None or resolved.commit != commit:
                continue
            end = await build_log.read(self._bus, f"{base}.{number}.finished", BuildFinished)
            if end is None:
                return BuildFinished(joined=number)
            if end.version is not None:
                return await self._again(prefix.split(".")[1], request, end)
        return None

    async def _again(self, project: str, request: BuildRequested, end: BuildFinished) -> BuildFinished | None:
        """Register the version of an earlier build again, if building it would give the same one."""
        assert end.version is not None  # noqa: S101 - checked by the caller
        version = await self._parts.versions.get(project, end.pipeline, end.version)
        if version is None or not await self._is_current(version):
            return None
        reply = await self._register(version, request)
        return _finished(version.pipeline, reply, end.warnings) if reply.version == version.version else None

    async def _register(self, version: Version, request: BuildRequested) -> VersionReply:
        fields = {name: getattr(version, name) for name in ("project", "pipeline", "source", "code", "environment")}
        again = RegisterVersion(
            **fields, environments=version.environments, git=version.git, publish=request.publish, by=request.by
        )
        return await self._parts.service.register(again)

    async def _is_current(self, version: Version) -> bool:
        """Whether all of its steps run in declared environments, which have not been resolved again since."""
        functions = [one for one in version.pipeline.steps.values() if one.kind is Kind.FUNCTION]
        if not functions or any(one.environment is None for one in functions):
            return False  # that of the builder may have changed
        builds = EnvironmentBuildLog(self._bus, version.project)
        for declaration in version.pipeline.environments:
            latest = await builds.latest(declaration.digest())
            end = await builds.finished(declaration.digest(), latest) if latest is not None else None
            if end is None or end.environment is None:
                return False
            if end.environment.digest != version.environments[declaration.name].digest:
                return False
        return True

    async def _make(
        self,
        project: str,
        request: BuildRequested,
        commit: str,
        session: Callable[[str], AbstractAsyncContextManager[Git]],
        installed: VirtualEnvironments,
        log: Log,
    ) -> BuildFinished:
        source = request.source
        async with _folder(self._parts.home / "builds") as folder:
            checkout = folder / "source"
            await Checkout(self._parts.mirrors, session, log).write(source, commit, checkout)
            packed = await compilation.pack(checkout, source.path, folder / "source.tar")
            for warning in packed.warnings:
                log(f"warning: {warning}")
            python = await self._project_python(project, packed, request.by, installed, log)
            log(f"compiling {Path(packed.file).relative_to(checkout)}")
            pipeline, warnings = await compilation.compile_pipeline(
                self._parts.sandbox, packed, checkout, source.pipeline, python, self._parts.compile_timeout, log
            )
            environments = {
                one.name: await self._environment(project, one, request.by, log) for one in pipeline.environments
            }
            await self._upload(packed)
        branch = "" if git_sources.is_commit(source.ref) else source.ref[:255]
        reply = await self._parts.service.register(
            RegisterVersion(
                project=project,
                pipeline=pipeline,
                source=packed.source,
                code=packed.code,
                environment=packed.own,
                environments=environments,
                interpreter=packed.interpreter,
                git=GitInfo(commit=commit, branch=branch, remote=source.url),
                publish=request.publish,
                by=request.by,
            )
        )
        return _finished(pipeline, reply, [*packed.warnings, *warnings])

    async def _project_python(
        self, project: str, packed: Packed, by: str, installed: VirtualEnvironments, log: Log
    ) -> str | None:
        """Return the interpreter of the environment of a project, installed on this machine; None: it has none."""
        if packed.environment is None:
            log("no uv.lock, pyproject.toml or requirements.txt: steps run in the environment of the builder")
            return None
        locked = await self._environment(project, packed.environment, by, log)
        lock = await self._parts.versions.lock(locked.digest)
        if lock is None:
            raise UnavailableError(f"the lock {locked.digest[:12]} of the environment is not stored")
        return await installed.install(lock, resolver.indexes(packed.environment), log)

    async def _environment(
        self, project: str, declaration: EnvironmentDeclaration, by: str, log: Log
    ) -> LockedEnvironment:
        """Return a declared environment; builds it unless an equal one was built."""
        builds = EnvironmentBuildLog(self._bus, project)
        number, end, new = await builds.request(declaration, by)
        if end is None:
            log(f"{'building' if new else 'waiting for'} environment {declaration.name!r}")
        subject = subjects.environment(project, declaration.digest(), number, "finished")
        async with self._parts.followers.follow(subjects.BUILDS, [subject], 0) as follower:
            while end is None:
                await follower.take(10.0)
                end = await builds.finished(declaration.digest(), number)
        if end.environment is None:
            why = end.error or f"it was cancelled by {end.cancelled_by}"
            raise EnvironmentBuildError(f"environment {declaration.name!r} cannot be built: {why}")
        return end.environment

    async def _upload(self, packed: Packed) -> None:
        """Store the source bundle."""
        data = await asyncio.to_thread(packed.bundle.read_bytes)
        stored = await FolderArtifacts(await self._mirror.root()).put_bytes(data)
        if stored != packed.source:
            raise CompileError("the source bundle changed while it was built")
        ref = ArtifactRef(sha256=stored, size=len(data), media_type="application/x-tar", format="bytes")
        await self._mirror.put([Stored(ref)])


def _finished(pipeline: Pipeline, reply: VersionReply, warnings: list[str]) -> BuildFinished:
    if reply.unavailable:
        raise UnavailableError(reply.error or "the version cannot be registered now")
    if reply.version is None:
        raise CompileError(reply.error or "the version cannot be registered")
    return BuildFinished(
        pipeline=pipeline.name,
        version=reply.version,
        created=reply.created,
        published=reply.published,
        warnings=warnings,
    )


@contextlib.asynccontextmanager
async def _folder(parent: Path) -> AsyncGenerator[Path]:
    """A new folder, which is removed afterwards; those of builders that were killed are removed now."""
    made = await asyncio.to_thread(_make_folder, parent)
    try:
        yield made
    finally:
        await asyncio.to_thread(shutil.rmtree, made, True)


def _make_folder(parent: Path) -> Path:
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for left in parent.glob("build-*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _LEFT:
                shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix="build-", dir=parent)).resolve()
