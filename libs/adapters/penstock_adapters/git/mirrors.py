"""Bare repositories on this machine, one for each URL with the same credentials, which all builds share.

Who names a commit of a private repository gets it only with the credentials with which it was fetched.

Only the commits that were needed are in them, without history. A file lock for each mirror lets one process write it
while others wait; those that read it share the lock, so that it is not removed. A mirror that `git` cannot read is made
again. Beyond a size, those that were not used for longest are removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import AsyncGenerator
from pathlib import Path

from penstock_adapters.git.command import Git, GitError, folder_size
from penstock_core import git_sources
from penstock_core.errors import UnavailableError

_WAIT = 0.1
_LEFT = 86400.0
"""Seconds after which temporary files of fetches that were killed are removed."""

_NOT_OFFERED = ("not our ref", "unadvertised object", "upload-pack: not our ref", "dumb http")


class Mirrors:
    """The mirrors in a folder.

    Args:
        folder: their folder; created when the first one is made.
        limit: bytes beyond which those that were not used for longest are removed.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit

    async def resolve(self, git: Git, ref: str) -> str:
        """Return the commit of a branch, tag or commit.

        Raises:
            GitError: there is no such ref, or the repository cannot be read.
            UnavailableError: the server does not answer.
        """
        if git_sources.is_commit(ref):
            return ref
        wanted = [ref, f"{ref}^{{}}"] if ref else ["HEAD"]
        listed = await git.run(["ls-remote", "--", git.url, *wanted])
        refs = {name: object_id for object_id, _, name in (line.partition("\t") for line in listed.splitlines())}
        found = git_sources.choose_commit(refs, ref)
        if found is None:
            if not ref:
                raise GitError(f"{git.url} has no commit on its default branch")
            raise GitError(f"{git.url} has no branch or tag {ref!r} (a commit must be given with all 40 characters)")
        return found

    @contextlib.asynccontextmanager
    async def commit(self, git: Git, commit: str, ref: str = "") -> AsyncGenerator[Path]:
        """Fetch a commit unless it is there; yield the bare repository, which is not removed meanwhile.

        Args:
            git: calls for the repository.
            commit: a full commit.
            ref: the branch or tag that it was found at.

        Raises:
            GitError: the repository has no such commit, or is too large.
            UnavailableError: the server does not answer.
        """
        name = git.access[:32]
        mirror = self._folder / f"{name}.git"
        try:
            shared = await self._lock(name, git, fcntl.LOCK_SH)
            try:
                while not await self._has(git, mirror, commit):
                    os.close(shared)
                    shared = -1
                    exclusive = await self._lock(name, git, fcntl.LOCK_EX)
                    try:
                        if not await self._has(git, mirror, commit):
                            await self._fetch(git, mirror, commit, ref)
                    finally:
                        os.close(exclusive)
                    # Another process may remove the mirror between the two locks: it is looked at once more.
                    shared = await self._lock(name, git, fcntl.LOCK_SH)
                os.utime(mirror)
                yield mirror
            finally:
                if shared >= 0:
                    os.close(shared)
        except OSError as error:
            raise UnavailableError(f"the mirror of {git.url} cannot be written: {error}") from error

    async def remove_unused(self) -> list[str]:
        """Remove mirrors beyond the limit that no process uses; return their names."""
        return await asyncio.to_thread(self._remove_unused)

    async def _has(self, git: Git, mirror: Path, commit: str) -> bool:
        if not (mirror / "HEAD").is_file():
            return False
        try:
            # `rev-list` and not `cat-file`: a fetch that was killed may have left the commit without its files.
            look = ["rev-list", "--objects", "--max-count=1", "--quiet", commit]
            await git.run(["--git-dir", str(mirror), *look], quiet=True)
        except GitError:
            return False
        return True

    async def _fetch(self, git: Git, mirror: Path, commit: str, ref: str) -> None:
        if not (mirror / "HEAD").is_file():
            await asyncio.to_thread(shutil.rmtree, mirror, True)
            await git.run(["init", "--quiet", "--bare", "--template=", "--", str(mirror)])
        await asyncio.to_thread(_clean, mirror)
        options = ["--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", "--no-auto-maintenance", "--quiet"]
        fetch = ["--git-dir", str(mirror), "fetch", *options]
        try:
            await git.run([*fetch, "--depth=1", "--", git.url, commit], watched=mirror)
        except GitError as error:
            if not any(words in str(error) for words in _NOT_OFFERED):
                raise
            # Some servers give what a branch or tag points to only.
            refs = [f"+{ref}"] if ref and not git_sources.is_commit(ref) else ["+refs/heads/*:refs/heads/*"]
            depth = ["--depth=1"] if refs[0] == f"+{ref}" else []
            await git.run([*fetch, *depth, "--", git.url, *refs], watched=mirror)
        if not await self._has(git, mirror, commit):
            raise GitError(f"{git.url} has no commit {commit}, or only in a branch that was deleted")

    async def _lock(self, name: str, git: Git, kind: int) -> int:
        """Lock a mirror. The kernel releases the lock of a process that was killed."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(self._folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + git.limits.timeout
        try:
            while True:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(lock, kind | fcntl.LOCK_NB)
                    return lock
                if time.monotonic() > deadline:
                    raise UnavailableError(f"other builds have used the mirror of {git.url} for too long")
                await asyncio.sleep(_WAIT)
        except BaseException:
            os.close(lock)
            raise

    def _remove_unused(self) -> list[str]:
        found: list[tuple[float, Path, int]] = []
        for mirror in self._folder.glob("*.git"):
            with contextlib.suppress(OSError):
                found.append((mirror.stat().st_mtime, mirror, folder_size(mirror)))
        excess = sum(size for _, _, size in found) - self._limit
        removed: list[str] = []
        for _, mirror, size in sorted(found):
            if excess <= 0:
                break
            lock = os.open(mirror.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            else:
                (mirror / "HEAD").unlink(missing_ok=True)  # incomplete first: a removal can be interrupted
                shutil.rmtree(mirror, ignore_errors=True)
                removed.append(mirror.stem)
                excess -= size
            finally:
                os.close(lock)
        return removed


def _clean(mirror: Path) -> None:
    """Remove what a `git` that was killed has left: locks, and packs that were not completed."""
    for pattern in ("*.lock", "refs/**/*.lock"):
        for left in mirror.glob(pattern):
            left.unlink(missing_ok=True)
    for left in (mirror / "objects").glob("pack/tmp_*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _LEFT:
                left.unlink()
