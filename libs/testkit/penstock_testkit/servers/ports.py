"""Ports for test servers that no other process of this machine uses, not even while a server is down.

They are below the ephemeral port range. Each test process reserves a block of them by a file lock, which is released
when the process exits.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import random
import socket
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_FIRST = 12_000
_END = 32_000
_BLOCK = 500


def free_ports(count: int) -> list[int]:
    """Return distinct unused ports; each is returned again only after all others."""
    return list(itertools.islice((port for port in _ports() if _free(port)), count))


@cache
def _ports() -> Iterator[int]:
    starts = list(range(_FIRST, _END, _BLOCK))
    random.shuffle(starts)
    # If all blocks are locked, two processes share one: a port in use is still not returned.
    own = next(filter(_lock, starts), starts[0])
    return itertools.cycle(range(own, own + _BLOCK))


def _lock(start: int) -> bool:
    path = Path(tempfile.gettempdir()) / f"penstock-tests-{start}.lock"
    try:
        fcntl.flock(os.open(path, os.O_CREAT | os.O_RDWR, 0o666), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
