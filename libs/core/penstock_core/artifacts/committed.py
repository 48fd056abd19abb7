"""Artifacts that attempts store while they run: their names in the log, and the checkpoint to resume from."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from penstock_core import ids
from penstock_core.errors import InvalidIdError
from penstock_core.facts import ArtifactCommitted

CHECKPOINT = "checkpoint"
"""Name of the checkpoint of a step; no artifact can have it."""

_NAME_KEPT = 60
_OTHER = re.compile(r"[^A-Za-z0-9_-]+")


def named(given: str, *, checkpoint: bool = False) -> tuple[str, str]:
    """Return `name` and `display_name` of the fact about an artifact that a step called `given`.

    A name that is a valid token of a subject is used as it is. Any other is converted to one with a part of its digest,
    so that different names stay different, and kept as the display name.
    """
    if checkpoint:
        return CHECKPOINT, ""
    try:
        if given != CHECKPOINT:
            return ids.check_name(given), ""
    except InvalidIdError:
        pass
    word = _OTHER.sub("_", given).lstrip("-")[:_NAME_KEPT] or "artifact"
    return f"{word}-{hashlib.sha256(given.encode(errors='replace')).hexdigest()[:12]}", given


def checkpoints(facts: Iterable[ArtifactCommitted], before: int) -> list[ArtifactCommitted]:
    """Return the checkpoints of the attempts before attempt `before`, the one to resume from first."""
    found = [fact for fact in facts if fact.name == CHECKPOINT and fact.attempt < before]
    return sorted(found, key=lambda fact: (fact.attempt, fact.at), reverse=True)
