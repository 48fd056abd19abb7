"""The platform for attempts in pods: their runners fetch and store objects themselves, with locations from here."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

from penstock_contracts import subjects
from penstock_contracts.commands import EnvironmentInfo, LockedEnvironment, Version
from penstock_core.artifacts import folders
from penstock_core.errors import PenstockError
from penstock_core.facts import AttemptRequested
from penstock_core.pipeline import values
from penstock_core.pipeline.values import ArtifactRef, Value
from penstock_core.shipping.messages import AttemptKey, Messages
from penstock_core.shipping.progress import TEXT_LIMIT, Report
from penstock_executor.checkpoints import latest_checkpoint
from penstock_executor.nats_platform import NatsPlatform
from penstock_executor.sources import WorkplaceError


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSupplies:
    """What a pod needs besides its attempt.

    Attributes:
        source: digest of the source bundle.
        environment: the environment of the version; None: not compared.
        checkpoint: the value that an earlier attempt stored last.
        limit: largest artifact in bytes; None without a limit.
        objects: digests of all objects that the pod may read.
    """

    source: str
    environment: EnvironmentInfo | None
    checkpoint: Value | None
    limit: int | None
    objects: frozenset[str]


class PodStoreError(PenstockError):
    """Pods cannot reach the artifact store."""


class PodPlatform(NatsPlatform):
    """Adds what only pods need."""

    async def digests(self, attempt: AttemptRequested) -> tuple[str, str]:
        """See the base: without a declared environment, the image of the pool stands in for that of the version."""
        version = await self._version(attempt)
        found = _declared(version, attempt).content() if attempt.environment else version.environment.digest
        return found, version.source

    async def image(self, attempt: AttemptRequested) -> str:
        """Return the image of an attempt's declared environment; empty if it declares none.

        Raises:
            WorkplaceError: the version or the environment does not exist, or it has no image.
            UnavailableError: the version could not be read now.
        """
        if not attempt.environment:
            return ""
        found = _declared(await self._version(attempt), attempt)
        if not found.image:
            raise WorkplaceError(
                f"environment {attempt.environment!r} has no image, which steps in pods need: set "
                "PENSTOCK_IMAGES_REPOSITORY for the builder, then `penstock env update FILE` and register again; or "
                "run the step in a pool of processes"
            )
        return found.image

    async def put(self, made: Iterable[Value]) -> None:
        """Check that the artifacts are in the store, where the runner has put them, and keep them from collection.

        Raises:
            TransferError: one is missing.
        """
        await self.mirror.check(made)

    async def supplies(self, attempt: AttemptRequested, *, check_environment: bool) -> PodSupplies:
        """Collect what the pod of an attempt needs.

        Raises:
            WorkplaceError: the version does not exist.
            PodStoreError: the store is a folder of this machine.
            UnavailableError: it could not be read now.
        """
        if await self.mirror.is_folder():
            raise PodStoreError(
                "the artifact store is a folder of the platform's machine, which pods cannot reach: set "
                "PENSTOCK_ARTIFACTS_URL to s3://BUCKET/PREFIX for the artifacts service"
            )
        if attempt.nodes > 1:
            raise WorkplaceError(
                f"a step with {attempt.nodes} nodes cannot run in pods: run it in a pool of processes, on one machine"
            )
        version = await self._version(attempt)
        checkpoint = await latest_checkpoint(attempt, self.facts, self.mirror.check, self._context.log.warning)
        given = [*attempt.inputs.values(), *([checkpoint] if checkpoint is not None else [])]
        references = [one for value in given for one in values.references(value)]
        objects = {version.source, *(one.sha256 for one in references)}
        for reference in references:
            objects |= await self._files(reference)
        return PodSupplies(
            source=version.source,
            environment=_compared(version, attempt, check_environment=check_environment),
            checkpoint=checkpoint,
            limit=await self.mirror.limit(),
            objects=frozenset(objects),
        )

    def show_waiting(self, attempt: AttemptKey, text: str) -> None:
        """Show what the pod of an attempt waits for as its progress, until the step reports one."""
        report = Report(time.time(), 0.0, 1.0, text[:TEXT_LIMIT])
        message = Messages(attempt).progress(report)
        self.replace(replace(message, message_id=f"{message.message_id}.waiting.{report.at}"))

    async def ended(self, attempts: list[AttemptKey]) -> list[AttemptKey]:
        """Return those of these attempts that have ended, or whose run was deleted.

        Raises:
            UnavailableError: the log does not answer.
        """
        ends = {subjects.finished(*attempt): attempt for attempt in attempts}
        return [ends[subject] for subject in await self.facts(list(ends))] if ends else []

    async def _version(self, attempt: AttemptRequested) -> Version:
        version = await self.versions.get(attempt.project, attempt.pipeline, attempt.version)
        if version is None:
            raise WorkplaceError(f"pipeline {attempt.pipeline!r} has no version {attempt.version}")
        return version

    async def _files(self, reference: ArtifactRef) -> set[str]:
        """The objects that a folder's manifest refers to."""
        if reference.media_type != folders.MEDIA_TYPE:
            return set()
        path = await self.mirror.local_file(reference.sha256)
        return set(folders.decode(path.read_bytes()).objects())


def _declared(version: Version, attempt: AttemptRequested) -> LockedEnvironment:
    found = version.environments.get(attempt.environment)
    if found is None:
        name = f"{attempt.pipeline} v{attempt.version}"
        raise WorkplaceError(f"{name} has no environment {attempt.environment!r}: register it again")
    return found


def _compared(version: Version, attempt: AttemptRequested, *, check_environment: bool) -> EnvironmentInfo | None:
    """Return what the image must have: of a declared environment the version of Python, as an own image may differ."""
    if attempt.environment:
        found = _declared(version, attempt)
        return EnvironmentInfo(version=found.version, digest=found.digest)
    return version.environment if check_environment else None
