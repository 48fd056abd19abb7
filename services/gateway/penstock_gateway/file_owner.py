"""The user of this machine that owns a file, as a principal."""

from __future__ import annotations

import pwd
from pathlib import Path

from penstock_core import access
from penstock_core.access import Principal


def owner(path: Path) -> Principal:
    """Return the user of this machine that owns a file or folder."""
    uid = path.stat().st_uid
    try:
        return access.user(pwd.getpwuid(uid).pw_name)
    except KeyError:  # an account without a name, as in many containers
        return access.user(f"uid-{uid}")
