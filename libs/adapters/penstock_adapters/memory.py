"""Has large blocks of memory given back to the system as soon as they are free."""

from __future__ import annotations

import ctypes
import functools

_M_MMAP_THRESHOLD = -3
_LARGE = 1024 * 1024


@functools.cache
def return_free_memory() -> None:
    """From now on, in this process; does nothing where the C library is not glibc.

    glibc maps large blocks one by one, until the first is freed: from then on it keeps blocks of that size for the
    thread that had it. Threads that pass pieces of 8 MiB on would keep several each. Setting the limit stops that.
    """
    try:
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
    except (OSError, AttributeError):  # another C library: it has its own ways
        return
