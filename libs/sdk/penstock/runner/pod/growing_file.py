"""A file that the step appends to, for `penstock_core.shipping`."""

from __future__ import annotations

from pathlib import Path


class AppendedFile:
    """Implements `penstock_core.shipping.tail.GrowingFile` on a path. Nothing stays open between calls."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def size(self) -> int | None:
        """See the protocol."""
        try:
            return self._path.stat().st_size
        except OSError:
            return None

    def read(self, offset: int, count: int) -> bytes:
        """See the protocol."""
        try:
            with self._path.open("rb", buffering=0) as file:
                file.seek(offset)
                return file.read(count)
        except OSError:
            return b""

    def truncate(self) -> bool:
        """See the protocol."""
        try:
            with self._path.open("rb+") as file:
                file.truncate(0)
        except OSError:
            return False
        return True
