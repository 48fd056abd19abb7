"""Environment variables of the commands that tests run, and the platforms that these leave."""

from __future__ import annotations

import os
from pathlib import Path


def user_environment() -> dict[str, str]:
    """Return this process's variables without settings of Penstock, except when embedded platforms stop.

    Tests set `PENSTOCK_IDLE=0`: an embedded platform stops with its last command, so that none is left.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    return {**kept, "PENSTOCK_IDLE": "0"}


def platforms_below(folder: Path) -> list[int]:
    """Return the processes of platforms whose state folder is below a folder."""
    found: list[int] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has exited
            continue
        if "penstock_standalone" in command and any(Path(part).is_relative_to(folder) for part in command if part):
            found.append(int(process.name))
    return found
