"""Folders that a step returns as a `Path`: stores their files and a manifest, and restores them.

Timestamps and owners are not stored, so equal content is the same artifact. `penstock_core.artifacts.folders` defines
the manifest and refuses paths that lead out of the folder before anything is written.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import ExitStack
from dataclasses import replace
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

from penstock.errors import ArtifactDamagedError, UnsavableError
from penstock.serialize import files
from penstock.store import FolderStore
from penstock_core.artifacts import folders
from penstock_core.artifacts.folders import File, Manifest


def save(folder: Path, store: FolderStore) -> tuple[bytes, Manifest]:
    """Store a folder's files, each durable when this returns. Gives the manifest, which is not stored yet.

    Raises:
        UnsavableError: a link points outside of the folder, a file name cannot be stored, an entry is neither file nor
            folder, or there are more files than a manifest may list.
    """
    root = folder.resolve()
    packer = _Packer(store)
    empty: list[str] = []
    links: list[tuple[str, str]] = []
    entries = files.entries(root)
    store.check_size(sum(path.stat().st_size for path in entries if path.is_file() and not path.is_symlink()))
    for path in entries:
        name = path.relative_to(root).as_posix()
        problem = folders.path_problem(name)
        if problem is not None:
            raise UnsavableError(f"the folder {root} contains {name!r}, which {problem}: rename it")
        if path.is_symlink():
            links.append((name, files.link_target(root, path)))
        elif path.is_dir():
            if not any(path.iterdir()):
                empty.append(name)
        elif path.is_file():
            packer.add(name, path)
        else:
            raise UnsavableError(f"{path} is neither a file nor a folder: the folder {root} cannot be stored")
    manifest = Manifest(files=tuple(packer.finish()), folders=tuple(empty), links=tuple(links))
    data = folders.encode(manifest)
    if len(data) > folders.MANIFEST_LIMIT:
        raise UnsavableError(
            f"the folder {root} contains {len(manifest.files)} files, which is too many: return an archive of it"
        )
    return data, manifest


class _Packer:
    """Puts files into a store: large ones as they are, small ones in packs."""

    def __init__(self, store: FolderStore) -> None:
        self._store = store
        self._done: list[File] = []
        self._packed: list[File] = []
        self._pack = bytearray()

    def add(self, name: str, path: Path) -> None:
        status = path.stat()
        executable = status.st_mode & 0o100 != 0
        if status.st_size > folders.SMALL:
            sha256, size = self._store.put_file(path, known=True)
            self._done.append(File(path=name, size=size, sha256=sha256, executable=executable))
            return
        data = path.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        self._packed.append(
            File(path=name, size=len(data), sha256=sha256, executable=executable, offset=len(self._pack))
        )
        self._pack += data
        if folders.ends_pack(sha256, len(self._pack)):
            self._end()

    def finish(self) -> list[File]:
        self._end()
        return self._done

    def _end(self) -> None:
        if not self._packed:
            return
        sha256, _ = self._store.put_bytes(bytes(self._pack))
        pack = sha256 if len(self._packed) > 1 else None
        self._done += [replace(file, pack=pack) for file in self._packed]
        self._packed, self._pack = [], bytearray()


def restore(reference: dict[str, Any], store: FolderStore, target: Path) -> None:
    """Write the folder that a reference names as the new folder `target`; see `load`."""
    sha256 = str(reference["sha256"])
    if is_manifest(reference):
        load(read(sha256, store), store, target)
    else:
        files.unpack(store.check(sha256), target)


def load(manifest: Manifest, store: FolderStore, target: Path) -> None:
    """Write a folder's files into the new folder `target`, read-only; folders stay writable, so it can be removed.

    Raises:
        ArtifactMissingError: the store does not have all of it.
        ArtifactDamagedError: bytes are not those that were stored.
    """
    target.mkdir(parents=True)
    for name in manifest.folders:
        (target / name).mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        pack: str | None = None
        opened: BufferedReader | None = None
        for file in manifest.files:
            path = target / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            if file.pack is None:
                load_file(file, store, path)
                continue
            if opened is None or file.pack != pack:
                stack.close()
                pack, opened = file.pack, stack.enter_context(store.open(file.pack))
            _write(file, opened, store, path)
    # Links last: nothing can be written through them.
    for name, to in manifest.links:
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(to)


def load_file(file: File, store: FolderStore, target: Path) -> None:
    """Write one file of a folder as the new file `target`, read-only."""
    if file.pack is not None:
        with store.open(file.pack) as opened:
            _write(file, opened, store, target)
    else:
        store.copy_to(file.sha256, target)
        target.chmod(_mode(file))


def _part(file: File, opened: IO[bytes]) -> bytes:
    """The bytes of a packed file. Its size comes from outside, and no packed file of ours is large."""
    if file.size > folders.SMALL:
        raise folders.UnsafeFolderError(f"the manifest has {file.path!r} of {file.size} bytes in a pack")
    opened.seek(file.offset)
    return opened.read(file.size)


def _write(file: File, opened: BufferedReader, store: FolderStore, target: Path) -> None:
    data = _part(file, opened)
    found = hashlib.sha256(data).hexdigest()
    if found != file.sha256:
        assert file.pack is not None  # noqa: S101 - called for packed files only
        store.set_aside(file.pack, opened)
        raise ArtifactDamagedError(
            f"artifact {file.pack} is damaged: the bytes of {file.path!r} in {store.path(file.pack)} have the SHA-256 "
            f"{found} instead of {file.sha256}. Rerun the step that produced it: the next good copy takes its place."
        )
    with target.open("xb") as made:
        made.write(data)
    target.chmod(_mode(file))


def _mode(file: File) -> int:
    return 0o555 if file.executable else 0o444


def read(sha256: str, store: FolderStore) -> Manifest:
    """The manifest of this digest, read from a store and checked.

    Raises:
        ArtifactMissingError: it is not there.
        ArtifactDamagedError: its bytes are not those that were stored.
        UnsafeFolder: it is not valid, or larger than any of ours.
    """
    try:
        data = store.read(sha256, folders.MANIFEST_LIMIT)
    except ValueError as error:
        raise folders.UnsafeFolderError(f"the folder's manifest is too large: {error}") from error
    return folders.decode(data)


def parts(reference: dict[str, Any], store: FolderStore) -> list[str]:
    """The digests of the objects that an artifact is made of, besides its own: those that a folder's manifest names."""
    return read(str(reference["sha256"]), store).objects() if is_manifest(reference) else []


def is_manifest(reference: dict[str, Any]) -> bool:
    """Whether a reference names a folder's manifest; older folders are archives."""
    return reference.get("format") == files.FOLDER and reference.get("media_type") == folders.MEDIA_TYPE


def relative(manifest: Manifest, path: str | os.PathLike[str]) -> File:
    """The file at a path that a user gave.

    Raises:
        FileNotFoundError: there is none; says which there are.
    """
    wanted = Path(path).as_posix().strip("/")
    found = manifest.file(wanted)
    if found is None:
        known = ", ".join(file.path for file in manifest.files[:20]) or "none"
        more = f" and {len(manifest.files) - 20} more" if len(manifest.files) > 20 else ""
        raise FileNotFoundError(f"the folder has no file {wanted!r}; its files: {known}{more}")
    return found
