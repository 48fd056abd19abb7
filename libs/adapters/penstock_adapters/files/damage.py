"""Damaged objects of a folder: found by their digest, and set aside, so that the next good copy takes their place."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import OrderedDict
from pathlib import Path

from penstock_adapters.files import garbage_collection
from penstock_core.artifacts import layout

_REMEMBERED = 10_000

Stamp = tuple[int, int, int]


class Verified:
    """Which files were found to have their digest, so that ranges of them are not preceded by a whole read each."""

    def __init__(self) -> None:
        self._stamps: OrderedDict[str, Stamp] = OrderedDict()

    def add(self, sha256: str, file: int) -> None:
        """Remember an open file that has its digest, until it is written to."""
        self._stamps[sha256] = _stamp(file)
        self._stamps.move_to_end(sha256)
        if len(self._stamps) > _REMEMBERED:
            self._stamps.popitem(last=False)

    def has(self, sha256: str, file: int) -> bool:
        """Whether an open file was verified and has not changed since."""
        return self._stamps.get(sha256) == _stamp(file)


def is_good(path: Path, sha256: str) -> bool:
    """Whether the bytes of a file have this digest."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def set_aside(root: Path, path: Path, file: int) -> None:
    """Move a damaged object to the folder of damaged ones, unless another file has taken its place meanwhile."""
    aside = root / layout.DAMAGED / path.name
    # A reader that may not write to the store leaves it: the next writer of these bytes replaces it.
    with contextlib.suppress(OSError), garbage_collection.exclusive_lock(root):
        if path.stat().st_ino == os.fstat(file).st_ino:
            aside.parent.mkdir(exist_ok=True)
            path.replace(aside)


def _stamp(file: int) -> Stamp:
    about = os.fstat(file)
    return about.st_ino, about.st_size, about.st_mtime_ns
