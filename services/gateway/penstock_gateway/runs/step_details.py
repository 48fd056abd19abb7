"""Details of steps beside their state: checkpoints, artifacts of running attempts, failed items, cache reports."""

from __future__ import annotations

from dataclasses import dataclass, field

from penstock_contracts.api import CheckpointView
from penstock_core.artifacts import committed
from penstock_core.cache import cached_results
from penstock_core.facts import (
    SUCCESSFUL,
    ArtifactCommitted,
    AttemptFinished,
    AttemptRequested,
    CacheMode,
    CacheReport,
    Fact,
    RunRequested,
)
from penstock_core.pipeline.ir import StepSpec
from penstock_core.pipeline.values import Value
from penstock_core.run.machine import RunState, Status


@dataclass(slots=True)
class StepDetails:
    """By step key: the latest checkpoint, the artifacts of the running attempt by name, the item that failed last.

    `models` are the names of the models that attempts registered; `events` the number of events that steps sent,
    `committed` the names of the artifacts that they stored.
    """

    checkpoints: dict[str, ArtifactCommitted] = field(default_factory=dict[str, ArtifactCommitted])
    artifacts: dict[str, dict[str, Value]] = field(default_factory=dict[str, dict[str, Value]])

    last_failed: dict[str, str] = field(default_factory=dict[str, str])
    models: set[str] = field(default_factory=set[str])
    events: dict[str, int] = field(default_factory=dict[str, int])
    committed: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])

    def fold(self, fact: Fact, state: RunState) -> None:
        """Update from a fact; `state` is that of the run after it."""
        match fact:
            case ArtifactCommitted(name=committed.CHECKPOINT):
                self.checkpoints[fact.key] = fact
            case ArtifactCommitted():
                self.artifacts.setdefault(fact.key, {})[fact.effective_name] = fact.value
            case AttemptRequested():
                self.artifacts.pop(fact.key, None)  # those of the previous attempt
            case AttemptFinished() if fact.outcome in SUCCESSFUL:
                self.artifacts.pop(fact.key, None)  # the fact has them all
                self.models.update(wanted.model for wanted in fact.models)
                if fact.events:
                    self.events[fact.key] = len(fact.events)
                if fact.artifacts:
                    self.committed[fact.key] = tuple(fact.artifacts)
            case AttemptFinished():
                step = state.find(fact.key)
                if step is not None and step.index is not None and step.status is Status.FAILED:
                    self.last_failed[step.node] = step.key
            case _:
                pass

    def checkpoint(self, key: str) -> CheckpointView | None:
        """Return the last checkpoint of a step."""
        fact = self.checkpoints.get(key)
        return CheckpointView(attempt=fact.attempt, at=fact.at, value=fact.value) if fact is not None else None


def describe_cache(report: CacheReport | None, spec: StepSpec, request: RunRequested, now: float) -> str:
    """Return what the cache did for a finished step in a sentence; empty for a step without cache."""
    if report is not None:
        return cached_results.describe(report, now)
    off = spec.cache and request.cache is CacheMode.OFF
    return "the run has the cache off: it neither reads nor writes cached results" if off else ""
