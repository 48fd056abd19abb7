"""Files and folders that a step gives as a `Path`.

A folder is a tar without times and owners, its names sorted: the same content is the same artifact. Reading one trusts
nothing: a name or a link that leads out of the folder is refused before anything is written.
"""

from __future__ import annotations

import mimetypes
import os
import tarfile
from pathlib import Path, PurePosixPath
from typing import IO

from penstock.serialize.formats import Unsavable

FILE, FOLDER = "file", "folder"
_CHUNK = 1024 * 1024


class UnsafeArchive(ValueError):
    """A folder's archive holds what no archive of ours would: a path that leaves the folder, a device, a hard link."""


def media_type(path: Path) -> str:
    """Of a file, by its name."""
    return mimetypes.guess_type(path.name)[0] or "application/octet-stream"


def pack(folder: Path, target: Path) -> None:
    """Write a folder as a tar to `target`.

    Raises:
        Unsavable: it holds a link that leads out of it, or something that is neither file nor folder.
    """
    root = folder.resolve()
    with target.open("wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in _sorted_entries(root):
            _add(archive, root, path)


def _sorted_entries(root: Path) -> list[Path]:
    found: list[Path] = []
    for base, folders, names in os.walk(root):
        found += [Path(base, name) for name in (*folders, *names)]
    return sorted(found, key=lambda path: path.relative_to(root).parts)


def _add(archive: tarfile.TarFile, root: Path, path: Path) -> None:
    member = tarfile.TarInfo(path.relative_to(root).as_posix())
    if path.is_symlink():
        if not path.resolve().is_relative_to(root) or path.readlink().is_absolute():
            raise Unsavable(f"{path} is a link that leads out of the folder {root}: copy the file into it instead")
        member.type, member.linkname = tarfile.SYMTYPE, path.readlink().as_posix()
        archive.addfile(member)
    elif path.is_dir():
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(member)
    elif path.is_file():
        status = path.stat()
        member.size, member.mode = status.st_size, 0o755 if status.st_mode & 0o100 else 0o644
        with path.open("rb") as content:
            archive.addfile(member, content)
    else:
        raise Unsavable(f"{path} is neither a file nor a folder, so that the folder {root} cannot be kept")


def unpack(archive_path: Path, target: Path) -> None:
    """Write a tar's files into the new folder `target`, made read-only; folders stay writable, so it can be removed.

    Raises:
        UnsafeArchive: a member leads out of the folder. Nothing is written.
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
        raise UnsafeArchive(f"the archive holds {member.name!r}, which leads out of the folder")
    if member.issym():
        depth = len(name.parts) - 1
        for part in PurePosixPath(member.linkname).parts:
            depth += -1 if part == ".." else 1
            if depth < 0 or part == "/":
                raise UnsafeArchive(
                    f"the archive holds the link {member.name!r} to {member.linkname!r}, out of the folder"
                )
    elif not member.isreg() and not member.isdir():
        raise UnsafeArchive(f"the archive holds {member.name!r}, which is neither a file nor a folder")


def _write(source: IO[bytes] | None, path: Path, mode: int) -> None:
    if source is None:
        raise UnsafeArchive(f"the archive's file {path.name!r} cannot be read")
    with source, path.open("xb") as file:
        while chunk := source.read(_CHUNK):
            file.write(chunk)
    path.chmod(mode)
