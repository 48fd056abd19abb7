"""What keeps writers and sweepers of a folder apart, and what sweepers do.

A sweeper marks what nothing names, and removes it when the mark is old enough: so an object is named by nothing for the
whole grace period before it goes. An object's time of modification is when it was put last, or touched by somebody who
is about to name it. Whoever finds an object there and touches it, or gives it its name, holds the store's lock together
with all other writers; whoever looks at that time and removes the object holds it alone. So an object never goes
between the look and the touch of a writer. The SDK's `penstock.store` keeps to the same rule.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Generator, Iterator
from pathlib import Path
from stat import S_ISREG

from penstock_core import artifact_layout
from penstock_core.ports import StoredObject, check_note

NOTES = "notes"
MARKS = "marks"
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


@contextlib.contextmanager
def shared_lock(root: Path) -> Generator[None]:
    """Hold the lock of a store with other writers; short, for names only."""
    with _locked(root, fcntl.LOCK_SH):
        yield


@contextlib.contextmanager
def exclusive_lock(root: Path) -> Generator[None]:
    """Hold the lock of a store alone; short."""
    with _locked(root, fcntl.LOCK_EX):
        yield


@contextlib.contextmanager
def _locked(root: Path, how: int) -> Generator[None]:
    root.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(root / artifact_layout.LOCK, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def touch(root: Path, path: Path) -> int | None:
    """Have an object's time begin anew, without a mark; its size, or None when it is not there."""
    if not path.exists():  # the usual case of a new object takes no lock
        return None
    with shared_lock(root), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        found = path.stat()
        if S_ISREG(found.st_mode):
            os.utime(path)
            _mark(root, path).unlink(missing_ok=True)
            return found.st_size
    return None


def sweep(root: Path, path: Path, before: float) -> bool:
    """Mark an object, or remove it when it was marked before that time, and neither put nor touched since."""
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
    """An empty file whose time tells since when nothing names the object."""
    return root / MARKS / path.parent.name / path.name


def listing(root: Path) -> Iterator[list[StoredObject]]:
    """The objects of a store, one folder at a time."""
    top = root / artifact_layout.OBJECTS
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
    """Where a note lies. Raises `InvalidIdError` when its name could lead out of the store."""
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
