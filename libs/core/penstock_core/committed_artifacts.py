"""What attempts store while they run: how it is named in the log, and which checkpoint an attempt goes on from."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from penstock_core import ids
from penstock_core.errors import InvalidIdError
from penstock_core.facts import ArtifactCommitted

CHECKPOINT = "checkpoint"
"""Name of the checkpoint of a step; no artifact has it."""

_NAME_KEPT = 60
_OTHER = re.compile(r"[^A-Za-z0-9_-]+")


def named(given: str, *, checkpoint: bool = False) -> tuple[str, str]:
    """`name` and `given` of the fact about something that a step called `given`.

    What can be a word of a subject stands as it is. Anything else becomes such a word, with a part of its digest so
    that different names stay different, and is kept beside it.
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
    """The checkpoints of the attempts before attempt `before`, the one to go on from first."""
    found = [fact for fact in facts if fact.name == CHECKPOINT and fact.attempt < before]
    return sorted(found, key=lambda fact: (fact.attempt, fact.at), reverse=True)
