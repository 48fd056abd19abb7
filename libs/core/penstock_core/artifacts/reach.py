"""How a project can read an artifact."""

from __future__ import annotations

import enum


class Reached(enum.Enum):
    """Whether, and why, a project can read an artifact."""

    NO = "no"
    """It cannot."""
    GIVEN = "given"
    """A principal uploaded it, or gave it to a run, a version or a deployment: it need not have a folder's files."""
    MADE = "made"
    """A run made it, or it is part of a model. Of a folder: its files can be read, too."""
