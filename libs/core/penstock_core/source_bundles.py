"""Source bundles: uncompressed tar archives, within bounds that every service checks before it unpacks one."""

from __future__ import annotations

from penstock_core.errors import PenstockError

TOTAL_LIMIT = 20 * 1024 * 1024
"""Largest sum of all files, in bytes."""

MAX_ENTRIES = 50_000
"""Most files and folders."""

MAX_DEPTH = 100
"""Most folders above a file."""

ARCHIVE_LIMIT = TOTAL_LIMIT + MAX_ENTRIES * 4096
"""Largest archive, with the headers of its entries, in bytes."""

READ_MODE = "r:"
"""The mode of `tarfile.open`: a compressed archive, whose size says nothing about its content, is not read."""


class BundleRefusedError(PenstockError):
    """A source bundle exceeds the bounds; nothing of it is used."""


def check_size(size: int) -> None:
    """Check the size of an archive in bytes.

    Raises:
        BundleRefusedError: it is too large.
    """
    if size > ARCHIVE_LIMIT:
        raise BundleRefusedError(f"the source bundle has {size} bytes, more than {ARCHIVE_LIMIT}")


class Bounds:
    """Checks the entries of one archive, one after the other."""

    def __init__(self) -> None:
        self._count = 0
        self._total = 0

    def admit(self, name: str, size: int) -> None:
        """Check the next entry; `size` in bytes is that of its content.

        Raises:
            BundleRefusedError: there are too many, they are too large together, or its path is too deep.
        """
        self._count += 1
        self._total += size
        if self._count > MAX_ENTRIES:
            raise BundleRefusedError(f"the source bundle has more than {MAX_ENTRIES} files")
        if self._total > TOTAL_LIMIT:
            raise BundleRefusedError(f"the files of the source bundle have more than {TOTAL_LIMIT} bytes together")
        if name.count("/") > MAX_DEPTH:
            raise BundleRefusedError(f"the source bundle has a path with more than {MAX_DEPTH} folders: {name[:200]}…")
