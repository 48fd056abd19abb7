"""Keeps the secrets of a service from other processes of its user, such as the steps that it runs.

Every process of the same user can read `/proc/PID/environ` and `/proc/PID/mem` of a process, and the processes that it
starts inherit its environment. So a service takes its secrets out of the environment, where only its settings find
them, overwrites them in the memory that `/proc/PID/environ` shows, and is not dumpable: the kernel then lets root alone
look into it.
"""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path

SECRET = re.compile(r"PENSTOCK_((.*_)?(TOKEN|SECRET|KEY|SEED|PASSWORD|NATS_URL|DATABASE_URL|SMTP_URL)|SECRET_.+)")
"""Names of the environment variables that are taken out of the environment."""

_ALSO_OVERWRITTEN = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
"""Read from the environment by libraries, at any time."""

_PR_SET_DUMPABLE = 4
_ENV_START, _ENV_END = 47, 48
"""Fields of /proc/PID/stat after the name of the process."""

_taken: dict[str, str] = {}


def protect() -> None:
    """Keep the secrets of this process from others. Repeatable. To be called before other processes are started."""
    names = [name for name in os.environ if SECRET.fullmatch(name)]
    _overwrite([*names, *(name for name in _ALSO_OVERWRITTEN if name in os.environ)])
    for name in names:
        _taken[name] = os.environ.pop(name)
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def taken() -> dict[str, str]:
    """Return the variables that were taken out of the environment, for the settings."""
    return dict(_taken)


def _overwrite(names: list[str]) -> None:
    """Overwrite the values of variables in the memory that /proc/PID/environ shows."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[_ENV_START]), int(fields[_ENV_END])
    except (OSError, ValueError, IndexError):
        return
    block = ctypes.string_at(start, max(0, end - start))
    place = 0
    for entry in block.split(b"\0"):
        name = entry.partition(b"=")[0]
        if os.fsdecode(name) in names:
            ctypes.memset(start + place + len(name) + 1, ord("*"), len(entry) - len(name) - 1)
        place += len(entry) + 1
