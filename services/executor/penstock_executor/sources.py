"""Prepares the environment of an attempt: unpacks the source bundle of its version, finds its interpreter."""

from __future__ import annotations

import asyncio
import os
import shutil
import tarfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from penstock_adapters.nats.buckets.versions import Versions
from penstock_adapters.process import AttemptEnvironment
from penstock_contracts.commands import LockedEnvironment, Version
from penstock_core import source_bundles
from penstock_core.errors import PenstockError
from penstock_core.facts import AttemptRequested
from penstock_core.source_bundles import BundleRefusedError
from penstock_executor.declared_environments import DeclaredEnvironments
from penstock_executor.interpreters import Interpreters


class WorkplaceError(PenstockError):
    """The version or its source is missing."""


class Sources:
    """Environments of attempts; each source bundle is unpacked once."""

    def __init__(
        self,
        home: Path,
        versions: Versions,
        local_file: Callable[[str], Awaitable[Path]],
        interpreters: Interpreters,
        declared: DeclaredEnvironments,
    ) -> None:
        self._folder = home / "sources"
        self._versions = versions
        self._local_file = local_file
        self._interpreters = interpreters
        self._declared = declared
        self._unpacked: dict[str, Path] = {}
        self._lock = asyncio.Lock()

    async def digests(self, attempt: AttemptRequested) -> tuple[str, str]:
        """Return the digests of the environment that an attempt would run in, and of its source bundle.

        Raises:
            WorkplaceError: there is no such version.
            EnvironmentMissingError: no interpreter on this machine has the environment.
            UnavailableError: it could not be read now.
        """
        version = await self._version(attempt)
        if attempt.environment:
            return self._locked(version, attempt).content(), version.source
        return (await self._interpreters.find(version.environment)).digest, version.source

    def _locked(self, version: Version, attempt: AttemptRequested) -> LockedEnvironment:
        found = version.environments.get(attempt.environment)
        if found is None:
            name = f"{attempt.pipeline} v{attempt.version}"
            raise WorkplaceError(f"{name} has no environment {attempt.environment!r}: register it again")
        return found

    async def _version(self, attempt: AttemptRequested) -> Version:
        version = await self._versions.get(attempt.project, attempt.pipeline, attempt.version)
        if version is None:
            raise WorkplaceError(f"pipeline {attempt.pipeline!r} has no version {attempt.version}")
        return version

    async def workplace(self, attempt: AttemptRequested, artifacts: str) -> AttemptEnvironment:
        """Prepare source and interpreter of an attempt.

        Args:
            attempt: the attempt.
            artifacts: absolute path of the folder of artifacts on this machine.

        Raises:
            WorkplaceError: the version or its source is missing; the message says which.
            EnvironmentMissingError: no interpreter on this machine has the environment.
            EnvironmentBuildError: a declared environment cannot be installed.
            UnavailableError: it could not be read now.
        """
        version = await self._version(attempt)
        modules = ""
        if attempt.environment:
            locked = self._locked(version, attempt)
            if locked.image_only:
                raise WorkplaceError(
                    f"environment {attempt.environment!r} is an image, which executors of processes cannot use: run "
                    "the step in a pool of pods, or declare requirements"
                )
            interpreter, modules = await self._declared.find(locked), str(await self._declared.modules())
        else:
            interpreter = await self._interpreters.find(version.environment)
        source = self._unpacked.get(version.source) or await self._unpack(version.source)
        return AttemptEnvironment(
            source=str(source),
            python=interpreter.python,
            artifacts=artifacts,
            # Modules outside of the bundle may differ between versions with the same source and environment.
            environment=f"{interpreter.digest}/{version.code or ''}",
            modules=modules,
        )

    async def _unpack(self, source: str) -> Path:
        async with self._lock:
            target = self._folder / source
            if not target.is_dir():
                bundle = await self._local_file(source)
                await asyncio.to_thread(_unpack, bundle, target)
            self._unpacked[source] = target.resolve()
            return self._unpacked[source]


def _unpack(bundle: Path, target: Path) -> None:
    """Unpack beside the target, then rename: a half-unpacked bundle is never used."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}")
    bounds = source_bundles.Bounds()
    try:
        if part.exists():  # a machine without descriptors could not remove it
            shutil.rmtree(part)
        part.mkdir()
        source_bundles.check_size(bundle.stat().st_size)
        with tarfile.open(bundle, source_bundles.READ_MODE) as tar:
            for member in tar:
                bounds.admit(member.name, member.size)
            tar.extractall(part, filter="data")
        _protect(part)
        part.rename(target)
    except (tarfile.TarError, OSError, BundleRefusedError) as error:
        shutil.rmtree(part, ignore_errors=True)
        if not target.is_dir():
            raise WorkplaceError(f"the source bundle {bundle.name[:12]} cannot be unpacked: {error}") from error


def _protect(folder: Path) -> None:
    """Make files read-only, and readable by every user who can enter the parent folder."""
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o222 | 0o444 if path.is_file() else path.stat().st_mode | 0o055)
    folder.chmod(folder.stat().st_mode | 0o055)
