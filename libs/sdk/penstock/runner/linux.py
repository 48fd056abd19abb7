"""What the runner asks of the kernel and Python's standard library does not offer."""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_PAGE = 64 * 1024

# Loaded before any fork: the child then only calls.
_libc = ctypes.CDLL(None)
_prctl = _libc.prctl


def die_with_parent(parent: int) -> None:
    """Have this process killed when the thread that made it ends; end at once when that has happened already.

    Args:
        parent: the parent's process id, as known before this process was made.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def outlive_parent() -> None:
    """Undo `die_with_parent`."""
    _prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0)


def adopt_orphans() -> None:
    """Become the parent of all descendants whose own parent ends, so that none can slip away."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children() -> list[int]:
    """Process ids of this (single-threaded) process's children; empty if the kernel does not report them."""
    pid = os.getpid()
    try:
        # Without the objects of `pathlib` and `io`: this is called for each attempt.
        descriptor = os.open(f"/proc/{pid}/task/{pid}/children", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        text = b""
        while part := os.read(descriptor, _PAGE):
            text += part
    except OSError:
        return []
    finally:
        os.close(descriptor)
    return [int(word) for word in text.split()]


def has_threads(name: str) -> bool:
    """Whether this process has a thread of that name; False if the kernel does not report it."""
    for path in Path("/proc/self/task").glob("*/comm"):
        with suppress(OSError):  # a thread that ended meanwhile
            if path.read_text().strip() == name:
                return True
    return False


def hide_memory() -> None:
    """Keep other processes of this user from reading this process's memory and initial environment."""
    _prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def raise_oom_score() -> None:
    """Make the kernel's OOM killer choose a step before a service."""
    try:
        Path("/proc/self/oom_score_adj").write_text("500")
    except OSError:
        return


def flush_c_streams() -> None:
    """Write what native code has printed and the C library still buffers."""
    _libc.fflush(None)
