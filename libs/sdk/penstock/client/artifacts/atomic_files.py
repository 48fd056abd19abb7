"""Files that appear complete or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def write_atomically(target: Path, write: Callable[[Path], object]) -> None:
    """Have `write` fill a temporary file beside `target`, then rename it to `target`."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    try:
        write(part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
