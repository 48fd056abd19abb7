"""Virtual environments on this machine, one for each lock, shared by all services that use the folder.

An environment is installed into a folder beside its own, checked, then renamed. So one that was not completed, because
its installer was killed or the disk was full, is never used. A file lock for each digest lets one process install it
while others wait. Processes that use an environment share that lock, so that it is not removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import AsyncGenerator
from pathlib import Path

from penstock_adapters.commands import Log
from penstock_adapters.uv import command
from penstock_adapters.uv.command import EnvironmentBuildError, Indexes
from penstock_core.environments.lock import EnvironmentLock
from penstock_core.errors import UnavailableError

_WAIT = 0.1
_CHECK = 60.0
"""Seconds that the interpreter of a new environment may take to start."""

_ABANDONED = 86400.0
"""Seconds, besides the timeout, after which what an installer has left was not completed by it."""

_COMPLETE = "penstock-environment"
"""File in an environment that is complete; its time of change is when the environment was used last."""


class VirtualEnvironments:
    """The virtual environments in a folder.

    Args:
        folder: their folder; created when the first one is installed.
        limit: bytes beyond which those that were not used for longest are removed.
        timeout: seconds until an installation is given up.
    """

    def __init__(self, folder: Path, limit: int, timeout: float) -> None:
        self._folder = folder
        self._limit = limit
        self._timeout = timeout
        self._used: dict[str, int] = {}

    def find(self, digest: str) -> str | None:
        """Return the interpreter of an environment that is installed, and keep it from being removed."""
        if digest in self._used and not self._is_usable(digest):
            os.close(self._used.pop(digest))
        if digest not in self._used:
            if not self._is_usable(digest):
                return None
            shared = self._open(digest)
            try:
                fcntl.flock(shared, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:  # it is being removed
                os.close(shared)
                return None
            if not self._is_usable(digest):
                os.close(shared)
                return None
            self._used[digest] = shared
        with contextlib.suppress(OSError):
            os.utime(self._folder / digest / _COMPLETE)
        return str(self._python(digest))

    async def install(self, lock: EnvironmentLock, indexes: Indexes, log: Log) -> str:
        """Return the interpreter of an environment; install it if it is not there.

        Raises:
            EnvironmentBuildError: it cannot be installed; in the words of uv.
            UnavailableError: an index does not answer, or the machine has run out of something.
        """
        digest = lock.digest()
        while (python := self.find(digest)) is None:
            try:
                async with self._exclusive(digest):
                    if not self._is_usable(digest):
                        await self._install(lock, indexes, log)
            except OSError as error:
                raise UnavailableError(f"environment {digest[:12]} cannot be installed: {error}") from error
        return python

    def release(self) -> None:
        """Let other processes remove the environments that this one has used."""
        for shared in self._used.values():
            os.close(shared)
        self._used.clear()

    async def remove_unused(self) -> list[str]:
        """Remove environments beyond the limit that no process uses; return their digests."""
        return await asyncio.to_thread(self._remove_unused)

    def _python(self, digest: str) -> Path:
        return self._folder.resolve() / digest / "bin" / "python"

    def _is_usable(self, digest: str) -> bool:
        """Whether an environment is complete, and the interpreter that it links to was not uninstalled since."""
        return (self._folder / digest / _COMPLETE).is_file() and os.access(self._python(digest), os.X_OK)

    async def _install(self, lock: EnvironmentLock, indexes: Indexes, log: Log) -> None:
        digest = lock.digest()
        for left in self._folder.glob(f"{digest}.*.part"):
            await asyncio.to_thread(shutil.rmtree, left, True)
        # A new name: the uv of an installer that was killed may still write to the old one.
        part = self._folder / f"{digest}.{secrets.token_hex(4)}.part"
        python = part / "bin" / "python"
        try:
            # Relocatable: it is renamed, and its scripts find their interpreter beside themselves.
            options = ("--no-project", "--no-config", "--no-python-downloads", "--relocatable", "--quiet")
            await self._run(["venv", *options, "--python", lock.python, str(part)], log)
            text = part / "lock.txt"
            text.write_text(lock.text(), encoding="utf-8")
            options = ("--require-hashes", "--no-config", "--no-python-downloads", *indexes.options())
            await self._run(["pip", "sync", *options, "--python", str(python), str(text)], log)
            await _check(python, lock.python)
            (part / _COMPLETE).write_text(digest, encoding="utf-8")
            await asyncio.to_thread(shutil.rmtree, self._folder / digest, True)
            part.rename(self._folder / digest)
        finally:
            await asyncio.to_thread(shutil.rmtree, part, True)

    async def _run(self, arguments: list[str], log: Log) -> None:
        await command.run(arguments, self._folder, log, self._timeout)

    def _open(self, digest: str) -> int:
        self._folder.mkdir(parents=True, exist_ok=True)
        return os.open(self._folder / f"{digest}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @contextlib.asynccontextmanager
    async def _exclusive(self, digest: str) -> AsyncGenerator[None]:
        """Hold the lock of a digest alone. The kernel releases that of a process that was killed."""
        lock = self._open(digest)
        deadline = time.monotonic() + self._timeout
        try:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(_WAIT)
                if time.monotonic() > deadline:
                    raise UnavailableError(
                        f"another process has used or installed environment {digest[:12]} for {self._timeout:g} s"
                    )
                if self._is_usable(digest):
                    break  # another process has installed it, and uses it already
            yield
        finally:
            os.close(lock)

    def _remove_unused(self) -> list[str]:
        for left in self._folder.glob("*.part"):  # of installers that were killed
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > _ABANDONED + self._timeout:
                    shutil.rmtree(left, ignore_errors=True)
        sizes: list[tuple[float, str, int]] = []
        for complete in self._folder.glob(f"*/{_COMPLETE}"):
            with contextlib.suppress(OSError):
                sizes.append((complete.stat().st_mtime, complete.parent.name, _size(complete.parent)))
        excess = sum(size for _, _, size in sizes) - self._limit
        removed: list[str] = []
        for _, digest, size in sorted(sizes):
            if excess <= 0:
                break
            if digest in self._used:
                continue
            lock = self._open(digest)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            else:
                # Incomplete first: a removal that is interrupted leaves nothing that seems to be usable.
                (self._folder / digest / _COMPLETE).unlink(missing_ok=True)
                shutil.rmtree(self._folder / digest, ignore_errors=True)
                removed.append(digest)
                excess -= size
            finally:
                os.close(lock)
        return removed


async def _check(python: Path, version: str) -> None:
    """Raise `EnvironmentBuildError` if an installed interpreter does not start, or has another version."""
    process = await asyncio.create_subprocess_exec(
        *(str(python), "-I", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={},
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), _CHECK)
    except TimeoutError:
        raise UnavailableError(f"Python {version} did not start in the new environment in {_CHECK:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    found = output.decode(errors="replace").strip()
    if process.returncode != 0 or found != version:
        raise EnvironmentBuildError(f"Python {version} does not start in the new environment: {found[-500:]}")


def _size(folder: Path) -> int:
    """Bytes of the files that are in no other environment: others are links to files in the cache of uv."""
    return sum(
        stat.st_size // stat.st_nlink
        for path, _, files in os.walk(folder)
        for stat in (os.lstat(os.path.join(path, name)) for name in files)  # noqa: PTH118
    )
