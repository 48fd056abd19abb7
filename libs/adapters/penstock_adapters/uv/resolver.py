"""Resolves the declaration of an environment to a lock: exact versions with hashes, for every platform."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from penstock_adapters.commands import Log
from penstock_adapters.uv import command
from penstock_adapters.uv.command import EnvironmentBuildError, Indexes
from penstock_core.environments import lock
from penstock_core.environments.declaration import EnvironmentDeclaration
from penstock_core.environments.lock import EnvironmentLock, InvalidLockError

_OUTPUT = ("--no-header", "--no-annotate", "--no-python-downloads", "--no-config")


def indexes(declaration: EnvironmentDeclaration) -> Indexes:
    """Return the package indexes that a declaration names."""
    return Indexes(declaration.index, declaration.extra_indexes)


async def resolve(declaration: EnvironmentDeclaration, log: Log, timeout: float) -> EnvironmentLock:
    """Resolve a declaration.

    Args:
        declaration: what to resolve.
        log: receives the lines that uv prints.
        timeout: in seconds.

    Raises:
        EnvironmentBuildError: the requirements cannot be resolved; in the words of uv.
        UnavailableError: an index does not answer, or the machine has run out of something.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-resolve-") as name:
        folder = Path(name)
        await asyncio.to_thread(_write, declaration, folder)
        arguments = _export(declaration) if declaration.uv_lock else _compile(declaration)
        text = await command.run(arguments, folder, log, timeout, "\n".join(declaration.requirements))
    try:
        return lock.make(declaration.python, text)
    except InvalidLockError as error:
        raise EnvironmentBuildError(str(error)) from error


def _write(declaration: EnvironmentDeclaration, folder: Path) -> None:
    (folder / "constraints.txt").write_text("\n".join(declaration.constraints), encoding="utf-8")
    if declaration.uv_lock:
        (folder / "pyproject.toml").write_text(declaration.pyproject, encoding="utf-8")
        (folder / "uv.lock").write_text(declaration.uv_lock, encoding="utf-8")


def _compile(declaration: EnvironmentDeclaration) -> list[str]:
    return [
        *("pip", "compile", "-", "--universal", "--generate-hashes", *_OUTPUT),
        *("--python-version", declaration.python, "--python", sys.executable),
        *(("--constraints", "constraints.txt") if declaration.constraints else ()),
        *indexes(declaration).options(),
    ]


def _export(declaration: EnvironmentDeclaration) -> list[str]:
    """Read `uv.lock`. Nothing is resolved, so a lock that does not fit `pyproject.toml` is refused."""
    extras = (f"--extra={name}" for name in declaration.extras)
    # The project itself is code, which travels in the source bundle.
    options = ("--locked", "--no-emit-project", "--no-dev", "--format", "requirements.txt")
    return ["export", *options, *_OUTPUT, "--python", declaration.python, *extras]
