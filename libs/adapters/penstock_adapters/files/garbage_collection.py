"""Mark-and-sweep garbage collection of a folder, and the locking between it and writers.

Collection marks an unreferenced object, and removes it when the mark is older than the grace period. The modification
time of an object is that of the latest put, or of the latest touch by a writer that is about to refer to it. Writers
share the store's lock while they touch an object or rename it into place; collection has the lock exclusively while it
checks that time and removes the object. So no object is removed between a writer's check and its touch. The SDK's
`penstock.store` follows the same rule.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Generator, Iterator
from pathlib import Path
from stat import S_ISREG

from penstock_core.artifacts import layout
from penstock_core.ports import StoredObject, check_note

NOTES = "notes"
MARKS = "marks"
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


@contextlib.contextmanager
def shared_lock(root: Path) -> Generator[None]:
    """Share the lock of a store with other writers; briefly, for renames only."""
    with _locked(root, fcntl.LOCK_SH):
        yield


@contextlib.contextmanager
def exclusive_lock(root: Path) -> Generator[None]:
    """Lock a store exclusively; briefly."""
    with _locked(root, fcntl.LOCK_EX):
        yield


@contextlib.contextmanager
def _locked(root: Path, how: int) -> Generator[None]:
    root.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(root / layout.LOCK, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def touch(root: Path, path: Path) -> int | None:
    """Set the time of an object to now, and remove its mark; returns its size, or None when it does not exist."""
    if not path.exists():  # usually the object is new: no lock is needed
        return None
    with shared_lock(root), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        found = path.stat()
        if S_ISREG(found.st_mode):
            os.utime(path)
            _mark(root, path).unlink(missing_ok=True)
            return found.st_size
    return None


def sweep(root: Path, path: Path, before: float) -> bool:
    """Mark an object; or remove it, if it was marked before `before` and neither put nor touched since."""
    mark = _mark(root, path)
    with exclusive_lock(root):
        try:
            put = path.stat().st_mtime
        except FileNotFoundError:
            mark.unlink(missing_ok=True)
            return False
        try:
            marked = mark.stat().st_mtime
        except FileNotFoundError:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
            return False
        if marked >= before or put >= before:
            return False
        path.unlink()
        mark.unlink()
        return True


def marked(root: Path) -> Iterator[list[str]]:
    """The digests of marked objects, one folder at a time."""
    for number in range(256):
        with contextlib.suppress(FileNotFoundError):
            if found := [path.name for path in (root / MARKS / f"{number:02x}").iterdir()]:
                yield found


def _mark(root: Path, path: Path) -> Path:
    """The mark: an empty file whose time is since when the object is unreferenced."""
    return root / MARKS / path.parent.name / path.name


def listing(root: Path) -> Iterator[list[StoredObject]]:
    """The objects of a store, one folder at a time."""
    top = root / layout.OBJECTS
    for number in range(256):
        found: list[StoredObject] = []
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(top / f"{number:02x}") as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if _DIGEST.match(entry.name) and entry.is_file(follow_symlinks=False):
                        about = entry.stat(follow_symlinks=False)
                        found.append(StoredObject(entry.name, about.st_size, about.st_mtime))
        if found:
            yield found


def note_path(root: Path, name: str) -> Path:
    """Path of a note. Raises `InvalidIdError` when its name could point outside of the store."""
    return root / NOTES / check_note(name)


def notes(root: Path, prefix: str) -> Iterator[tuple[str, bytes]]:
    """The notes whose names begin with `prefix`, by name."""
    top = root / NOTES
    for folder, below, files in os.walk(top):
        below.sort()
        for file in sorted(files):
            path = Path(folder) / file
            name = path.relative_to(top).as_posix()
            if name.startswith(prefix):
                with contextlib.suppress(FileNotFoundError):
                    yield name, path.read_bytes()
