"""The user of this process, whom the platform records as the author of a change."""

from __future__ import annotations

import getpass


def current_user() -> str:
    """Return the login name of the user of this process; empty where the system knows none."""
    try:
        return getpass.getuser()[:200]
    except (KeyError, OSError):
        return ""
