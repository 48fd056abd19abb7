"""Seeds of attempts, and the global random generators of libraries."""

from __future__ import annotations

import hashlib
import json
import random
import sys


def derive(*parts: str | int) -> int:
    """A seed of 32 bits, which all libraries take: equal for equal `parts`."""
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:4], "big")


def seed_libraries(seed: int) -> None:
    """Seed `random`, and the global generators of NumPy and torch if they are imported."""
    random.seed(seed)
    if (numpy := sys.modules.get("numpy.random")) is not None:
        numpy.seed(seed)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(seed)
