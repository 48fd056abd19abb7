"""Check that the current state machine accounts for each fact of a log: its decisions, requests, waits and timers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from penstock_core.facts import (
    AttemptFinished,
    AttemptQueued,
    AttemptRequested,
    ClockReached,
    Fact,
    Outcome,
    RunAdmitted,
    RunFinished,
    SlotGranted,
    StepExpanded,
    StepSkipped,
    StepSuspended,
)
from penstock_core.pipeline.ir import Kind
from penstock_core.run import machine
from penstock_core.run.effects import AcquireSlots, AdmitRun, Effect
from penstock_core.run.machine import RunState
from penstock_testkit.checks import invariants


class FactOrigins:
    """The facts that the states of a run can cause. Add every state of the run, then query `missing`."""

    def __init__(self, facts: Sequence[Fact]) -> None:
        self._facts = facts
        self._decided: dict[str, list[Fact]] = {}
        self._effects: set[Effect] = set()
        self._due: set[int] = set()
        self._waits: dict[tuple[str, int], Kind] = {}
        self._requested: set[tuple[str, int]] = set()
        for fact in facts:
            if isinstance(fact, StepSuspended):
                self._waits[fact.key, fact.attempt] = fact.kind
            elif isinstance(fact, AttemptRequested):
                self._requested.add((fact.key, fact.attempt))

    def add_state(self, state: RunState) -> None:
        """Collect the facts that a state can cause. The state is left unchanged."""
        for fact in machine.decide(state):
            self._decided.setdefault(fact.tail, []).append(fact)
        self._effects.update(state.outbox)
        if (at := state.alarm()) is not None:
            due = math.ceil(at * 1000)
            self._due |= {due, due + 1}  # rounded up to whole milliseconds

    def missing(self) -> list[Fact]:
        """Return the facts that no state accounts for."""
        return [fact for fact in self._facts if not self._accounted(fact)]

    def _accounted(self, fact: Fact) -> bool:
        match fact:
            case AttemptRequested() | AttemptQueued() | StepSuspended() | StepSkipped() | StepExpanded():
                # A placeholder for an unreadable message is not a decision.
                return invariants.unreadable(fact) or self._was_decided(fact)
            case AttemptFinished():
                return self._ended(fact)
            case SlotGranted():
                return AcquireSlots(fact.key, fact.attempt) in self._effects
            case RunAdmitted():
                return AdmitRun() in self._effects
            case ClockReached():
                return round(fact.at * 1000) in self._due
            case RunFinished(outcome=Outcome.SKIPPED):
                return AdmitRun() in self._effects
            case RunFinished():
                return fact.error == "the end of the run is unreadable" or self._was_decided(fact)
            case _:
                return True  # reported by users, executors and earlier runs

    def _was_decided(self, fact: Fact) -> bool:
        return fact in self._decided.get(fact.tail, ())

    def _ended(self, end: AttemptFinished) -> bool:
        """Whether an attempt was ended by its executor, by the source of its wait, or by a decision."""
        if self._was_decided(end) or (end.error is not None and end.error.type == "CorruptEvent"):
            return True
        attempt = (end.key, end.attempt)
        if end.executor and attempt not in self._waits:
            return attempt in self._requested
        waited = self._waits.get(attempt)
        if waited is None or waited is Kind.SLEEP or end.outcome is Outcome.CANCELLED:
            return False
        # Answers, events and ends of other runs are external; timeouts are decisions.
        return end.outcome is not Outcome.TIMED_OUT
