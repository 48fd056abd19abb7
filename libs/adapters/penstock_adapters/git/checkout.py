"""Writes a commit into a folder: regular files, links within the folder, and submodules if they are wanted.

Nothing of the repository is executed: there are no hooks, and no filters but that of Git LFS. A link that leaves the
folder would let a build read files of the machine, so it is removed.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from penstock_adapters.git.command import Git, GitError, LongOutputError
from penstock_adapters.git.mirrors import Mirrors
from penstock_core import git_sources

_SUBMODULES = 100
"""Submodules of one source."""

_DEPTH = 5
"""Submodules in submodules."""

Session = Callable[[str], AbstractAsyncContextManager[Git]]
"""Prepares calls of `git` for the repository at a URL."""


class Checkout:
    """Checks commits out.

    Args:
        mirrors: where commits are fetched to.
        session: prepares calls for a repository, with the credentials for its host.
        log: receives lines for the user.
    """

    def __init__(self, mirrors: Mirrors, session: Session, log: Callable[[str], None]) -> None:
        self._mirrors = mirrors
        self._session = session
        self._log = log
        self._count = 0
        self._root = Path()

    async def write(self, source: git_sources.GitSource, commit: str, folder: Path) -> None:
        """Write a commit of a source into a new folder.

        Raises:
            GitError: it cannot be fetched, or a submodule is refused.
            UnavailableError: a server does not answer.
        """
        self._root = folder
        async with self._session(source.url) as git:
            await self._write(git, source, commit, folder, source.ref, _DEPTH)
        await asyncio.to_thread(self._remove_outside_links, folder)

    async def _write(
        self, git: Git, source: git_sources.GitSource, commit: str, folder: Path, ref: str, depth: int
    ) -> None:
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        # Beside the checkout, not in it: git follows a link that the repository has at that place.
        index = self._root.with_name(f"{self._root.name}.index-{self._count}")
        async with self._mirrors.commit(git, commit, ref) as mirror:
            base = ["--git-dir", str(mirror), "--work-tree", str(folder)]
            listing = await _list(git, base, commit)
            variables = {"GIT_INDEX_FILE": str(index)}
            await git.run([*base, "read-tree", commit], variables=variables)
            await git.run(
                [*base, "checkout-index", "--all", "--force"],
                settings=_lfs(git.url) if source.lfs else None,
                variables={**variables, "GIT_LFS_SKIP_SMUDGE": "0" if source.lfs else "1"},
                watched=folder,
            )
            found = await self._submodules(git, base, commit, listing, folder) if source.submodules else []
        index.unlink(missing_ok=True)
        for path, url, at in found:
            self._count += 1
            if self._count > _SUBMODULES or depth == 0:
                raise GitError(f"{source.url} has more than {_SUBMODULES} submodules, or more than {_DEPTH} levels")
            self._log(f"submodule {path}: {url} at {at[:12]}")
            target = _empty_folder(folder, path)
            async with self._session(url) as inner:
                await self._write(inner, source, at, target, "", depth - 1)

    async def _submodules(
        self, git: Git, base: list[str], commit: str, listing: str, folder: Path
    ) -> list[tuple[str, str, str]]:
        """Return path, URL and commit of each submodule."""
        commits = {
            path: head.split()[2]
            for head, _, path in (entry.partition("\t") for entry in listing.split("\0") if entry)
            if head.startswith("160000 ")
        }
        modules = folder / ".gitmodules"
        if not commits or not modules.is_file() or modules.is_symlink():
            return []
        # `--blob` reads the file as configuration without including others.
        lines = (await git.run([*base, "config", "--blob", f"{commit}:.gitmodules", "--list", "-z"])).split("\0")
        values = dict(line.split("\n", 1) for line in lines if "\n" in line)
        found: list[tuple[str, str, str]] = []
        for name, path in values.items():
            if not name.endswith(".path") or path not in commits:
                continue
            if (problem := git_sources.path_problem(path)) is not None:
                raise GitError(f"a submodule is refused: {problem}")
            url = values.get(f"{name.removesuffix('.path')}.url", "")
            found.append((path, git_sources.submodule_url(git.url, url), commits[path]))
        return found

    def _remove_outside_links(self, folder: Path) -> None:
        root = folder.resolve()
        for base, folders, files in os.walk(folder):
            for name in (*folders, *files):
                path = Path(base, name)
                if path.is_symlink() and (problem := _link_problem(path, root)):
                    self._log(f"{path.relative_to(folder)} is a link {problem} and is left out")
                    path.unlink()


async def _list(git: Git, base: list[str], commit: str) -> str:
    """Return what a commit contains. A few trees that contain each other can be more files than memory has room for."""
    try:
        return await git.run([*base, "ls-tree", "-r", "-z", commit])
    except LongOutputError as error:
        raise GitError(
            f"{git.url} has more files at this commit than a builder reads, about a million: leave files that the "
            "pipeline does not need out of the repository"
        ) from error


def _link_problem(path: Path, root: Path) -> str:
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "to itself"
    return "" if path.resolve().is_relative_to(root) else "out of the repository"


def _empty_folder(folder: Path, path: str) -> Path:
    """Return the folder of a submodule. None of its parents may be a link, which could lead elsewhere."""
    target = folder
    for part in path.split("/"):
        target = target / part
        if target.is_symlink():
            raise GitError(f"the submodule {path!r} is refused: {part!r} is a link")
    if target.is_dir() and any(target.iterdir()):
        shutil.rmtree(target)
    return target


def _lfs(url: str) -> dict[str, str]:
    """The filter of Git LFS, with the server of the repository itself, whatever `.lfsconfig` says."""
    return {
        "filter.lfs.smudge": "git-lfs smudge -- %f",
        "filter.lfs.required": "true",
        "lfs.url": f"{url}/info/lfs" if url.endswith(".git") else f"{url}.git/info/lfs",
        "lfs.locksverify": "false",
        "lfs.concurrenttransfers": "4",
    }
