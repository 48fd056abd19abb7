"""Errors that say that the machine has run out of something. They are the infrastructure's, never the user's."""

from __future__ import annotations

import errno
from collections.abc import Iterator

OUT_OF_RESOURCES = "OutOfResources"
"""Type of the error of an attempt that ended because the machine had run out of something."""

_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM, errno.ENOSPC})
"""File descriptors of the process and of the machine, processes, memory, disk."""


def is_exhaustion(error: BaseException) -> bool:
    """Whether an error, or one that it follows from, says that the machine has run out of something."""
    return any(isinstance(one, OSError) and one.errno in _ERRNOS for one in _chain(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(20):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__
