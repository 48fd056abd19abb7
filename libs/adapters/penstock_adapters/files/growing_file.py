"""A file that another process appends to, for `penstock_core.shipping`."""

from __future__ import annotations

import os
import time

from penstock_core.shipping.tail import Tail


class AppendedFile:
    """Implements `GrowingFile` on a path. Nothing stays open between calls."""

    def __init__(self, path: str) -> None:
        self._path = path

    def size(self) -> int | None:
        """See the protocol."""
        try:
            return os.stat(self._path).st_size  # noqa: PTH116 - called on every poll of every attempt
        except OSError:
            return None

    def read(self, offset: int, count: int) -> bytes:
        """See the protocol."""
        try:
            with open(self._path, "rb", buffering=0) as file:  # noqa: PTH123
                file.seek(offset)
                return file.read(count)
        except OSError:
            return b""

    def truncate(self) -> bool:
        """See the protocol."""
        try:
            os.truncate(self._path, 0)
        except OSError:
            return False
        return True


def tail_of(base: str, preface: str = "") -> Tail:
    """Read an attempt's files: `base` is their path without suffix; `preface` is output that precedes the log's."""
    return Tail(lambda suffix: AppendedFile(f"{base}.{suffix}"), time.time, preface)
