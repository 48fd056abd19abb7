"""What this machine, or its container, offers to steps."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_NVIDIA = Path("/proc/driver/nvidia/gpus")


def cores() -> float:
    """Return the cores that processes may use: of the machine, or of the container."""
    available = float(len(os.sched_getaffinity(0)))
    quota, _, period = _text(_CGROUP / "cpu.max").partition(" ")
    if quota.isdecimal() and period.isdecimal() and int(period):
        return min(available, int(quota) / int(period))
    return available


def memory() -> int:
    """Return the bytes of memory of the machine, or of the container."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _text(_CGROUP / "memory.max")
    return min(total, int(limit)) if limit.isdecimal() else total


def gpus() -> int:
    """Return the number of NVIDIA devices that are visible; set `PENSTOCK_GPUS` for others."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        count = len(list(_NVIDIA.iterdir()))
    except OSError:
        count = 0
    if visible is None:
        return count
    return min(count, len([device for device in visible.split(",") if device.strip() not in ("", "-1")]))


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
