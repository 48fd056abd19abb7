"""The facts of a run: what happened, in the past tense, never changed.

Each fact has a subject in the run's log (`tail` is its end). The log accepts one append-once fact a subject: the first
one counts. So the tail is the identity of a fact.
"""

from __future__ import annotations

from typing import get_args

from penstock_core.facts.attempts import (
    ArtifactCommitted,
    AttemptFinished,
    AttemptQueued,
    AttemptRequested,
    AttemptStarted,
    AttemptStopped,
    SlotGranted,
)
from penstock_core.facts.parts import (
    SUCCESSFUL,
    CacheMode,
    CacheReport,
    CacheRule,
    Caller,
    ErrorInfo,
    Limit,
    Outcome,
    Registration,
    StepEvent,
)
from penstock_core.facts.retention import RunArchived, RunDeleted
from penstock_core.facts.runs import CancelRequested, ClockReached, RunAdmitted, RunFinished, RunRequested
from penstock_core.facts.steps import StepCancelRequested, StepExpanded, StepReused, StepSkipped, StepSuspended

Fact = (
    RunRequested
    | RunAdmitted
    | ClockReached
    | CancelRequested
    | StepExpanded
    | StepReused
    | StepCancelRequested
    | StepSkipped
    | StepSuspended
    | AttemptQueued
    | SlotGranted
    | AttemptRequested
    | AttemptStarted
    | ArtifactCommitted
    | AttemptFinished
    | AttemptStopped
    | RunFinished
    | RunArchived
    | RunDeleted
)

FACTS: tuple[type[Fact], ...] = get_args(Fact)


__all__ = [
    "FACTS",
    "SUCCESSFUL",
    "ArtifactCommitted",
    "AttemptFinished",
    "AttemptQueued",
    "AttemptRequested",
    "AttemptStarted",
    "AttemptStopped",
    "CacheMode",
    "CacheReport",
    "CacheRule",
    "Caller",
    "CancelRequested",
    "ClockReached",
    "ErrorInfo",
    "Fact",
    "Limit",
    "Outcome",
    "Registration",
    "RunAdmitted",
    "RunArchived",
    "RunDeleted",
    "RunFinished",
    "RunRequested",
    "SlotGranted",
    "StepCancelRequested",
    "StepEvent",
    "StepExpanded",
    "StepReused",
    "StepSkipped",
    "StepSuspended",
]
