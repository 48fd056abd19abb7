"""Random number generators after a fork: each attempt starts as a new process would.

Forked children share their parent's generators. Where the user's module seeded a generator while it was imported, each
attempt must start from that seed, as it would in its own interpreter; otherwise each needs fresh entropy.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

_state: Any = None
_original = random.seed


@contextmanager
def watch_seeding() -> Generator[None]:
    """Record whether `random.seed` is called with a seed in this block."""
    random.seed = _seed_and_record
    try:
        yield
    finally:
        random.seed = _original
        if _state is not None:
            _keep()


def refresh() -> None:
    """In a new child: restore generators that were seeded, and reseed those that were not."""
    if _state is not None:  # Python itself reseeds `random` in each child
        random.setstate(_state)
    numpy = sys.modules.get("numpy.random")
    if numpy is not None and _seeded_by_itself(numpy):
        numpy.seed()


def _seed_and_record(a: Any = None, version: int = 2) -> None:
    _original(a, version)
    if a is not None:
        _keep()


def _keep() -> None:
    global _state
    _state = random.getstate()


def _seeded_by_itself(numpy: Any) -> bool:
    """Whether numpy's global generator still has its initial entropy: `seed(n)` removes its `seed_seq`."""
    try:
        return numpy.mtrand._rand._bit_generator.seed_seq is not None
    except AttributeError:
        return False
