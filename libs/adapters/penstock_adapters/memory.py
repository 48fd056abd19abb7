"""Returns large blocks of memory to the system as soon as they are free."""

from __future__ import annotations

import ctypes
import functools

_M_MMAP_THRESHOLD = -3
_LARGE = 1024 * 1024


@functools.cache
def return_free_memory() -> None:
    """Apply to this process from now on; does nothing unless the C library is glibc.

    glibc maps large blocks one by one, until the first is freed: from then on it keeps blocks of that size for the
    thread that had it. Threads that handle chunks of 8 MiB would keep several each. A fixed threshold prevents that.
    """
    try:
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
    except (OSError, AttributeError):  # another C library
        return
