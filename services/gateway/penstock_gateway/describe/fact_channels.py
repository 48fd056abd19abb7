"""The subject of each fact of a run, its senders and its receivers; for the AsyncAPI document."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_core.facts import (
    ArtifactCommitted,
    AttemptFinished,
    AttemptQueued,
    AttemptRequested,
    AttemptStarted,
    AttemptStopped,
    CancelRequested,
    ClockReached,
    Fact,
    RunAdmitted,
    RunArchived,
    RunDeleted,
    RunFinished,
    RunRequested,
    SlotGranted,
    StepCancelRequested,
    StepExpanded,
    StepReused,
    StepSkipped,
    StepSuspended,
)


@dataclass(frozen=True, slots=True)
class FactChannel:
    """The subject of a fact below its run, its senders and its receivers."""

    fact: type[Fact]
    tail: str
    senders: tuple[str, ...]
    receivers: tuple[str, ...]


_ATTEMPT = "step.{key}.{attempt}"

FACTS = (
    FactChannel(RunRequested, "requested", ("gateway", "cron", "scheduler"), ("scheduler", "gateway")),
    FactChannel(RunAdmitted, "admitted", ("scheduler",), ("scheduler", "gateway")),
    FactChannel(ClockReached, "clock.{milliseconds}", ("scheduler",), ("scheduler", "gateway")),
    FactChannel(CancelRequested, "cancel", ("gateway", "scheduler"), ("scheduler", "executor", "gateway")),
    FactChannel(StepExpanded, "step.{key}.expanded", ("scheduler",), ("gateway",)),
    FactChannel(StepReused, "step.{key}.reused", ("gateway",), ("scheduler", "gateway")),
    FactChannel(StepCancelRequested, "step.{key}.cancel", ("gateway",), ("scheduler", "gateway")),
    FactChannel(StepSkipped, "step.{key}.skipped", ("scheduler",), ("gateway",)),
    FactChannel(StepSuspended, f"{_ATTEMPT}.suspended", ("scheduler",), ("gateway",)),
    FactChannel(AttemptQueued, f"{_ATTEMPT}.queued", ("scheduler",), ("gateway",)),
    FactChannel(SlotGranted, f"{_ATTEMPT}.granted", ("scheduler",), ("scheduler", "gateway")),
    FactChannel(AttemptRequested, f"{_ATTEMPT}.requested.{{pool}}", ("scheduler",), ("executor", "gateway")),
    FactChannel(AttemptStarted, f"{_ATTEMPT}.started", ("executor",), ("gateway",)),
    FactChannel(ArtifactCommitted, f"{_ATTEMPT}.artifact.{{name}}", ("executor",), ("gateway",)),
    FactChannel(
        AttemptFinished, f"{_ATTEMPT}.finished", ("executor", "scheduler", "gateway"), ("scheduler", "gateway")
    ),
    FactChannel(AttemptStopped, f"{_ATTEMPT}.stopped", ("executor",), ("scheduler",)),
    FactChannel(RunFinished, "finished", ("scheduler",), ("gateway",)),
    FactChannel(RunArchived, "archived", ("artifacts",), ("gateway", "executor", "artifacts")),
    FactChannel(RunDeleted, "deleted", ("artifacts",), ("gateway", "artifacts")),
)
