"""The environments that pipelines declare, on this machine: installed by the builder here, or when they are first used.

Such an environment has what its lock says and nothing else. The runner of steps is no part of it: its modules, which
need the standard library only, are put on the module path by a folder of links.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

from penstock_adapters.nats.buckets.versions import Versions
from penstock_adapters.uv.command import Indexes
from penstock_adapters.uv.virtual_environments import VirtualEnvironments
from penstock_contracts.commands import LockedEnvironment
from penstock_executor.interpreters import EnvironmentMissingError, Interpreter

_PACKAGES = ("penstock", "penstock_core")


class DeclaredEnvironments:
    """Finds and installs declared environments.

    Args:
        folder: of the environments.
        versions: has the locks.
        installed: the environments in that folder.
        log: writes to the log of the service.
    """

    def __init__(
        self, folder: Path, versions: Versions, installed: VirtualEnvironments, log: Callable[..., None]
    ) -> None:
        self._folder = folder
        self._versions = versions
        self._installed = installed
        self._log = log
        self._modules: Path | None = None

    async def find(self, wanted: LockedEnvironment) -> Interpreter:
        """Return the interpreter of an environment, which is installed first if it is not there.

        Raises:
            EnvironmentMissingError: its lock is not stored, or the runner is not installed beside the executor.
            EnvironmentBuildError: it cannot be installed.
            UnavailableError: something does not answer now.
        """
        python = self._installed.find(wanted.digest)
        if python is None:
            lock = await self._versions.lock(wanted.digest)
            if lock is None:
                raise EnvironmentMissingError(
                    f"the lock {wanted.digest[:12]} of the environment is not stored: register the pipeline again"
                )
            self._log("installing an environment", digest=wanted.digest[:12], python=lock.python)
            indexes = Indexes(wanted.index, tuple(wanted.extra_indexes))
            python = await self._installed.install(lock, indexes, lambda line: self._log("uv", line=line))
            await self._installed.remove_unused()
        return Interpreter(python, wanted.digest)

    async def modules(self) -> Path:
        """Return the folder with the modules of the runner."""
        if self._modules is None:
            self._modules = await asyncio.to_thread(_link, self._folder.resolve())
        return self._modules


def _link(folder: Path) -> Path:
    """Make a folder of links to the packages of the runner. Its name depends on where they are."""
    found = {name: _location(name) for name in _PACKAGES}
    digest = hashlib.sha256("\n".join(map(str, found.values())).encode()).hexdigest()[:12]
    target = folder / f"runner-{digest}"
    target.mkdir(parents=True, exist_ok=True)
    for name, package in found.items():
        with contextlib.suppress(FileExistsError):
            os.symlink(package, target / name)  # noqa: PTH211
    return target


def _location(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise EnvironmentMissingError(
            f"the package {name!r} is not installed beside the executor: install penstock there"
        )
    return Path(spec.origin).parent
