"""What the kernel says of the memory of this container, by cgroup version 2 or 1."""

from __future__ import annotations

from pathlib import Path

from penstock_core import step_exits
from penstock_core.facts import ErrorInfo

_ROOT = Path("/sys/fs/cgroup")
_V1 = _ROOT / "memory"


def oom_kills() -> int:
    """How many processes of this container the kernel has killed for want of memory; 0 if it does not report it."""
    for path in (_ROOT / "memory.events", _V1 / "memory.oom_control"):
        for line in _read(path).splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill" and count.isdecimal():
                return int(count)
    return 0


def error(limit: int | None) -> ErrorInfo:
    """Return the error of a step that the kernel killed for want of memory; `limit` is the step's own, in bytes."""
    container = _bytes(_ROOT / "memory.max") or _bytes(_V1 / "memory.limit_in_bytes")
    peak = _bytes(_ROOT / "memory.peak") or _bytes(_V1 / "memory.max_usage_in_bytes")
    bound = limit or container
    why = "the step was killed for want of memory (OOMKilled)"
    if bound is not None:
        why += f": it needed more than its memory limit of {bound / 2**20:.0f} MiB"
    if peak is not None:
        why += f"; the container used {peak / 2**20:.0f} MiB at most"
    return ErrorInfo(type=step_exits.OUT_OF_MEMORY, message=why)


def _bytes(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdecimal() and int(text) < 2**60 else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
