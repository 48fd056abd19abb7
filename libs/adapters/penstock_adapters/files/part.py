"""Temporary files that become objects.

A writer locks its temporary file while it runs, which distinguishes leftovers from work in progress. Files without
a lock (steps write some) count as leftovers after an hour without a write.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from penstock_adapters.errors import ArtifactError, ArtifactMismatchError, StoreFullError, StoreRefusedError
from penstock_adapters.files import damage, garbage_collection
from penstock_adapters.files.lock import try_lock
from penstock_core.artifacts import layout

_OWN = "put-"
_OWN_AGE = 5.0
_OTHERS_AGE = 3600.0
_IN_THREAD = 256 * 1024
_SYNC_EVERY = 64 * 1024 * 1024


class PartFile:
    """An object being written. `close` removes it unless it was committed."""

    def __init__(self, root: Path) -> None:
        folder = root / layout.TEMPORARY
        folder.mkdir(parents=True, exist_ok=True)
        self.size = 0
        self._root = root
        self._hash = hashlib.sha256()
        self._threads: ThreadPoolExecutor | None = None
        self._syncing: Future[None] | None = None
        self._unsynced = 0
        self._path = folder / f"{_OWN}{secrets.token_hex(12)}"
        self._file = self._path.open("xb", buffering=0)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes. Large chunks are hashed and synced in threads, while the next ones arrive."""
        hashed: Future[None] | None = None
        if len(data) < _IN_THREAD:
            self._hash.update(data)
        else:
            self._threads = self._threads or ThreadPoolExecutor(2, thread_name_prefix="penstock-part")
            hashed = self._threads.submit(self._hash.update, data)
        self.size += len(data)
        try:
            view = memoryview(data)
            while len(view):
                view = view[self._file.write(view) :]
        finally:
            if hashed is not None:
                hashed.result()
        self._sync_ahead(len(data))

    def _sync_ahead(self, written: int) -> None:
        """Start to sync. An error of the disk is reported once only, so the result is always checked."""
        self._unsynced += written
        if self._threads is None or self._unsynced < _SYNC_EVERY:
            return
        if self._syncing is None or self._syncing.done():
            self._synced_ahead()
            self._syncing = self._threads.submit(os.fdatasync, self._file.fileno())
            self._unsynced = 0

    def _synced_ahead(self) -> None:
        if self._syncing is not None:
            syncing, self._syncing = self._syncing, None
            syncing.result()

    def commit(self, target: Path, sha256: str, size: int | None = None) -> None:
        """Make it the object `target`, durable when this returns; an existing good object is not replaced.

        Raises:
            ArtifactMismatchError: it has another digest or size.
        """
        found = self._hash.hexdigest()
        if found != sha256 or size not in (None, self.size):
            expected = "" if size is None else f" with {size} bytes"
            raise ArtifactMismatchError(
                f"the bytes given for artifact {sha256}{expected} are {self.size} bytes with the SHA-256 {found}: "
                "they changed while they were read or sent; nothing was stored"
            )
        if kept(self._root, target, self.size, sha256):
            return
        self._path.chmod(0o444)
        self._synced_ahead()
        os.fsync(self._file.fileno())
        if not target.parent.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            sync_folder(target.parent.parent)
        with garbage_collection.shared_lock(self._root):
            self._path.replace(target)
        sync_folder(target.parent)

    def name(self, path: Path) -> None:
        """Make it the file `path`, replacing an existing one; durable when this returns."""
        os.fsync(self._file.fileno())
        self._path.replace(path)
        sync_folder(path.parent)

    def close(self) -> None:
        """Close; an uncommitted file is removed."""
        if self._threads is not None:
            self._threads.shutdown()
        if not self._file.closed:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
            self._file.close()


def kept(root: Path, target: Path, size: int, sha256: str) -> bool:
    """Whether a good object exists and could be touched; that of another user cannot, a damaged one is replaced."""
    try:
        return garbage_collection.touch(root, target) == size and damage.is_good(target, sha256)
    except (PermissionError, FileNotFoundError):
        return False


def clean(root: Path, age: float = _OTHERS_AGE) -> None:
    """Create the folders of a store and remove leftovers of dead writers from `tmp`; `age` is that of steps' files."""
    folder = root / layout.TEMPORARY
    folder.mkdir(parents=True, exist_ok=True)
    (root / layout.OBJECTS).mkdir(exist_ok=True)
    sync_folder(root)
    if not os.access(folder, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
    now = time.time()
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            idle = now - path.stat().st_mtime
            if idle > (_OWN_AGE if path.name.startswith(_OWN) else age) and path.is_file():
                with try_lock(path) as locked:
                    if locked:
                        path.unlink()


def put_note(root: Path, path: Path, data: bytes) -> None:
    """Write a small file atomically and durably."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(PartFile(root)) as part:
        part.write(data)
        part.name(path)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def translate_errors(root: Path) -> Generator[None]:
    """Translate errors of the file system into errors that say how to fix them. `FileNotFoundError` is unchanged."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFullError(
                f"no room is left for artifacts in {root} ({error.strerror}): free some space or ask the "
                "administrator to raise the quota, then try again; no partial object is visible"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StoreRefusedError(
                f"the artifact folder {root} cannot be written or read ({error.strerror}): "
                "check its owner and permissions, or choose another folder"
            ) from error
        raise ArtifactError(f"the artifact folder {root} failed: {error}") from error
