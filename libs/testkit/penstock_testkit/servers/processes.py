"""Find processes of this machine that should have exited."""

from __future__ import annotations

import os
import time
from pathlib import Path


def gone(pid: int, seconds: float = 30.0) -> bool:
    """Whether a process exits within `seconds` (a zombie counts as exited)."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def processes_with(text: str) -> list[int]:
    """Return the processes whose environment or command line contains `text`."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if text.encode() in (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found
