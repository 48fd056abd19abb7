"""Makes an attempt's workplace ready: the source bundle of its version unpacked, its interpreter found."""

from __future__ import annotations

import asyncio
import os
import shutil
import tarfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from penstock_adapters.nats.buckets.versions import Versions
from penstock_adapters.process import AttemptEnvironment
from penstock_contracts.commands import Version
from penstock_core.errors import PenstockError
from penstock_core.facts import AttemptRequested


class WorkplaceError(PenstockError):
    """The version's source or interpreter cannot be had here."""


class Sources:
    """Workplaces by version; each is made once and kept."""

    def __init__(self, home: Path, versions: Versions, local_file: Callable[[str], Awaitable[Path]]) -> None:
        self._folder = home / "sources"
        self._artifacts = home / "artifacts"
        self._versions = versions
        self._local_file = local_file
        self._ready: dict[tuple[str, str, int], AttemptEnvironment] = {}
        self._lock = asyncio.Lock()

    async def digests(self, attempt: AttemptRequested) -> tuple[str, str]:
        """Digests of the environment that an attempt would run in, and of its source bundle.

        Raises:
            WorkplaceError: there is no such version.
            Unavailable: it could not be read now.
        """
        ready = self._ready.get((attempt.project, attempt.pipeline, attempt.version))
        if ready is not None:
            return ready.environment, Path(ready.source).name
        version = await self._version(attempt)
        return version.environment.digest, version.source

    async def _version(self, attempt: AttemptRequested) -> Version:
        version = await self._versions.get(attempt.project, attempt.pipeline, attempt.version)
        if version is None:
            raise WorkplaceError(f"pipeline {attempt.pipeline!r} has no version {attempt.version}")
        return version

    async def workplace(self, attempt: AttemptRequested) -> AttemptEnvironment:
        """The workplace of an attempt.

        Raises:
            WorkplaceError: the version, its source or its interpreter is missing; the message says which.
            Unavailable: it could not be read now.
        """
        name = (attempt.project, attempt.pipeline, attempt.version)
        ready = self._ready.get(name)
        if ready is not None:
            return ready
        async with self._lock:
            version = await self._version(attempt)
            python = version.environment.python
            if not os.access(python, os.X_OK):
                raise WorkplaceError(
                    f"the interpreter {python} of {attempt.pipeline!r} version {version.version} is not on this "
                    f"machine any more: register the pipeline again (`penstock run` does)"
                )
            target = self._folder / version.source
            if not target.is_dir():
                bundle = await self._local_file(version.source)
                await asyncio.to_thread(_unpack, bundle, target)
            ready = self._ready[name] = AttemptEnvironment(
                source=str(target.resolve()),
                python=python,
                artifacts=str(self._artifacts.resolve()),
                environment=version.environment.digest,
            )
            return ready


def _unpack(bundle: Path, target: Path) -> None:
    """Unpack beside the target, then rename: a half-unpacked bundle is never used."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        with tarfile.open(bundle) as tar:
            tar.extractall(part, filter="data")
        part.rename(target)
    except (tarfile.TarError, OSError) as error:
        shutil.rmtree(part, ignore_errors=True)
        if not target.is_dir():
            raise WorkplaceError(f"the source bundle {bundle.name[:12]} cannot be unpacked: {error}") from error
