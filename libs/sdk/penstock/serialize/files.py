"""Files that a step returns as a `Path`, contents of folders, and folders stored as a tar.

An archive with a name or a link outside of its folder is refused before anything is written.
"""

from __future__ import annotations

import mimetypes
import os
import tarfile
from pathlib import Path, PurePosixPath
from typing import IO

from penstock.errors import UnsavableError
from penstock_core.artifacts import folders
from penstock_core.artifacts.folders import UnsafeFolderError

FILE, FOLDER = "file", "folder"
_CHUNK = 1024 * 1024


def media_type(path: Path) -> str:
    """Return the media type of a file by its name."""
    return mimetypes.guess_type(path.name)[0] or "application/octet-stream"


def entries(root: Path) -> list[Path]:
    """Return all entries of a folder, sorted."""
    found: list[Path] = []
    for base, names_of_folders, names in os.walk(root):
        found += [Path(base, name) for name in (*names_of_folders, *names)]
    return sorted(found, key=lambda path: path.relative_to(root).parts)


def link_target(root: Path, path: Path) -> str:
    """Where a link in the folder `root` leads to, relative to it.

    Raises:
        UnsavableError: out of the folder.
    """
    target, resolved = path.readlink(), path.resolve()
    if target.is_absolute() or not resolved.is_relative_to(root):
        raise UnsavableError(
            f"{path} is a symbolic link to a file outside of the folder {root}: copy the file into the folder"
        )
    name = path.relative_to(root).as_posix()
    if not folders.link_leaves(name, target.as_posix()):
        return target.as_posix()
    return os.path.relpath(resolved, path.parent)


def unpack(archive_path: Path, target: Path) -> None:
    """Write a tar's files into the new folder `target`, made read-only; folders stay writable, so it can be removed.

    Raises:
        UnsafeFolderError: a member is outside of the folder. Nothing is written.
    """
    with tarfile.open(archive_path, mode="r:") as archive:
        members = archive.getmembers()
        for member in members:
            _check(member)
        target.mkdir(parents=True)
        for member in members:
            path = target / member.name
            if member.isdir():
                path.mkdir(parents=True, exist_ok=True)
            elif member.isreg():
                path.parent.mkdir(parents=True, exist_ok=True)
                _write(archive.extractfile(member), path, 0o555 if member.mode & 0o100 else 0o444)
        # Links last: nothing can be written through them.
        for member in members:
            if member.issym():
                path = target / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.symlink_to(member.linkname)


def _check(member: tarfile.TarInfo) -> None:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or not name.parts:
        raise UnsafeFolderError(f"the archive contains {member.name!r}, which is outside of the folder")
    if member.issym():
        if folders.link_leaves(name.as_posix(), member.linkname):
            raise UnsafeFolderError(
                f"the archive contains the link {member.name!r} to {member.linkname!r}, which is outside of the folder"
            )
    elif not member.isreg() and not member.isdir():
        raise UnsafeFolderError(f"the archive contains {member.name!r}, which is neither a file nor a folder")


def _write(source: IO[bytes] | None, path: Path, mode: int) -> None:
    if source is None:
        raise UnsafeFolderError(f"the archive's file {path.name!r} cannot be read")
    with source, path.open("xb") as file:
        while chunk := source.read(_CHUNK):
            file.write(chunk)
    path.chmod(mode)
