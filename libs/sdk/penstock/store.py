"""The folder artifact store as a step's process sees it: content-addressed files, written once.

The layout is that of the platform's own store, see `penstock_core.artifacts.layout`. In: files and bytes. Out: digests
and paths. Promise: an object is complete and durable, or does not exist; storing the same bytes twice is success.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import hashlib
import io
import os
import shutil
import tempfile
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from penstock.errors import ArtifactDamagedError, ArtifactMissingError, ArtifactTooLargeError, StoreFullError
from penstock_core.artifacts import layout

_CHUNK = 1024 * 1024
_LARGE = 4 * 1024 * 1024
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class FolderStore:
    """A content-addressed store in a local folder, which is created by the first write.

    Args:
        root: the folder.
        limit: largest artifact in bytes; None without one.
    """

    def __init__(self, root: str | os.PathLike[str], limit: int | None = None) -> None:
        self._root = root
        self.limit = limit

    @functools.cached_property
    def root(self) -> Path:
        """The folder. Made when it is needed: attempts without artifacts do not use it."""
        return Path(self._root)

    def path(self, sha256: str) -> Path:
        """Return the path of the object with this digest, whether it exists or not."""
        return self.root / layout.object_name(sha256)

    def has(self, sha256: str) -> bool:
        """Whether the object exists."""
        return self.path(sha256).is_file()

    def put_bytes(self, data: bytes) -> tuple[str, int]:
        """Store bytes; returns digest and size."""
        with self.temporary() as temporary:
            temporary.write_bytes(data)
            return self.adopt(temporary)

    def put_file(self, path: str | os.PathLike[str], *, known: bool = False) -> tuple[str, int]:
        """Store a copy of the file at `path`; returns digest and size.

        Args:
            path: the file.
            known: the store is likely to have it: look before copying, for the price of reading a new file twice.
        """
        self.check_size(Path(path).stat().st_size)
        if known:
            with Path(path).open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                size = os.fstat(file.fileno()).st_size
            if self._keep(sha256, size):
                return sha256, size
        with self.temporary() as temporary:
            shutil.copyfile(path, temporary)
            return self.adopt(temporary)

    @contextmanager
    def temporary(self) -> Generator[Path]:
        """A new empty file inside the store, to write to and then `adopt`; removed at the end if it was not."""
        folder = self.root / layout.TEMPORARY
        self._make_folder(folder)
        descriptor, name = tempfile.mkstemp(dir=folder)
        os.close(descriptor)
        path = Path(name)
        try:
            yield path
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise StoreFullError(
                f"no room is left for artifacts in {self.root} ({error.strerror}): free some space or ask the "
                "administrator to raise the quota, then rerun; no partial object is visible"
            ) from error
        finally:
            with suppress(FileNotFoundError):
                path.unlink()

    def adopt(self, temporary: Path) -> tuple[str, int]:
        """Move a finished temporary file to its place; returns digest and size. Durable when it returns."""
        with temporary.open("rb+") as file:
            size = os.fstat(file.fileno()).st_size
            self.check_size(size)
            if size < _LARGE:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                if self._keep(sha256, size):
                    return sha256, size
                os.fsync(file.fileno())
            else:
                sha256 = _hash_and_sync(file)
                if self._keep(sha256, size):
                    return sha256, size
        target = self.path(sha256)
        self._make_folder(target.parent)
        temporary.chmod(0o444)
        with self._lock():
            temporary.replace(target)
        sync_folder(target.parent)
        return sha256, size

    def check_size(self, size: int) -> None:
        """Raise `ArtifactTooLargeError` if `size` bytes exceed the limit."""
        if self.limit is not None and size > self.limit:
            raise ArtifactTooLargeError(
                f"the artifact has {size} bytes, more than the platform's limit of {self.limit} bytes; nothing was "
                "stored. Store less data, or ask the administrator to raise PENSTOCK_ARTIFACT_LIMIT"
            )

    def _keep(self, sha256: str, size: int) -> bool:
        """Whether there is a good object, so that it need not be written again; a damaged one is replaced."""
        target = self.path(sha256)
        if not target.is_file() or target.stat().st_size != size:
            return False
        with suppress(OSError):
            with self._lock():
                # Renew its time, so that it is not swept before something refers to it.
                os.utime(target)
            with target.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == sha256
        return False  # removed meanwhile, or owned by another user: it is rewritten

    @contextmanager
    def _lock(self, how: int = fcntl.LOCK_SH) -> Generator[None]:
        """Hold the lock: shared, it excludes the garbage collection; exclusive, all writers."""
        descriptor = os.open(self.root / layout.LOCK, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, how)
            yield
        finally:
            os.close(descriptor)

    def _make_folder(self, folder: Path) -> None:
        """Make a folder of the store, durably: a name in a folder that is itself not on disk would be lost with it."""
        if not folder.is_dir():
            new = [above for above in (folder, folder.parent, self.root) if not above.is_dir()]
            folder.mkdir(parents=True, exist_ok=True)
            for above in new:
                sync_folder(above.parent)

    def check(self, sha256: str) -> Path:
        """The path of an object whose bytes were read and found to be the stored ones.

        Raises:
            ArtifactMissingError: it is not there.
            ArtifactDamagedError: its bytes have another digest.
        """
        with self.open(sha256) as file:
            self.compare(sha256, hashlib.file_digest(file, "sha256").hexdigest(), file)
        return self.path(sha256)

    def compare(self, sha256: str, found: str, file: io.BufferedReader) -> None:
        """Compare the digest of an object with the one of its open file; a damaged object is set aside.

        Raises:
            ArtifactDamagedError: they differ.
        """
        if found != sha256:
            self.set_aside(sha256, file)
            compare(sha256, found, self.path(sha256))

    def set_aside(self, sha256: str, file: io.BufferedReader) -> None:
        """Move an object whose open file is damaged, unless another file has taken its place meanwhile."""
        path, aside = self.path(sha256), self.root / layout.DAMAGED / sha256
        # A step that may not write to the store leaves it: the next writer of these bytes replaces it.
        with suppress(OSError), self._lock(fcntl.LOCK_EX):
            if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                aside.parent.mkdir(exist_ok=True)
                path.replace(aside)

    def open(self, sha256: str) -> io.BufferedReader:
        """An object's bytes, which the caller compares with its digest.

        Raises:
            ArtifactMissingError: it is not there.
        """
        try:
            return self.path(sha256).open("rb")
        except FileNotFoundError as error:
            raise ArtifactMissingError(f"artifact {sha256} is not in the store at {self.root}") from error

    def read(self, sha256: str, limit: int) -> bytes:
        """An object's bytes, checked.

        Raises:
            ArtifactMissingError: it is not there.
            ArtifactDamagedError: its bytes have another digest.
            ValueError: it has more than `limit` bytes.
        """
        with self.open(sha256) as file:
            data = file.read(limit + 1)
            if len(data) > limit:
                raise ValueError(f"artifact {sha256} has more than {limit} bytes")
            self.compare(sha256, hashlib.sha256(data).hexdigest(), file)
        return data

    def copy_to(self, sha256: str, target: Path) -> None:
        """Write an object's bytes to the new file `target`, checking them on the way.

        Raises:
            ArtifactMissingError: it is not there.
            ArtifactDamagedError: its bytes have another digest; `target` is removed again.
        """
        digest = hashlib.sha256()
        with self.open(sha256) as source, target.open("xb") as copy:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                copy.write(chunk)
            try:
                self.compare(sha256, digest.hexdigest(), source)
            except ArtifactDamagedError:
                target.unlink()
                raise


def compare(sha256: str, found: str, path: Path) -> None:
    """Raise `ArtifactDamagedError` unless the digests are equal."""
    if found != sha256:
        raise ArtifactDamagedError(
            f"artifact {sha256} is damaged: the bytes in {path} have the SHA-256 {found}. "
            "Rerun the step that produced it: the next good copy takes its place."
        )


def _hash_and_sync(file: io.BufferedRandom) -> str:
    """The digest of a large file, which is written to the disk meanwhile."""
    failed: list[OSError] = []

    def sync() -> None:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=sync, name="penstock-sync")
    thread.start()
    try:
        return hashlib.file_digest(file, "sha256").hexdigest()
    finally:
        thread.join()
        for error in failed:
            raise error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
