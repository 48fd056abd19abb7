"""Parses forms with a bound on what is kept in memory: files are on disk beyond a small size."""

from __future__ import annotations

from starlette.formparsers import MultiPartException, MultiPartParser

IN_MEMORY = 64 * 1024
"""Bytes of a file that are kept in memory before it is written to disk."""


class FieldsTooLargeError(MultiPartException):
    """The parts of a form that are no files, and the headers of all parts, are too large together."""


class FormParser(MultiPartParser):
    """A parser of `multipart/form-data`. The fields, and the headers of all parts, have `max_part_size` bytes together.

    Starlette bounds each field alone, so that 200 of them could use 200 times as much memory.
    """

    spool_max_size = IN_MEMORY
    _kept = 0

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """Count what is kept in memory."""
        if self._current_part.file is None:
            self._count(end - start)
        super().on_part_data(data, start, end)

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        """Count what is kept in memory."""
        self._count(end - start)
        super().on_header_field(data, start, end)

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        """Count what is kept in memory."""
        self._count(end - start)
        super().on_header_value(data, start, end)

    def _count(self, size: int) -> None:
        self._kept += size
        if self._kept > self.max_part_size:
            raise FieldsTooLargeError(f"The fields of the form are too large: the limit is {self.max_part_size} bytes")
