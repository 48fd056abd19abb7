"""What the effects of runs act on, in the simulation: limiter, admission, expected events, other runs, timers, kills.

Each effect may be carried out again at any time, by a replica that has just folded the log, also when it is no longer
true. `leaked_resources` says what was not given back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from penstock_core.facts import (
    AttemptQueued,
    ClockReached,
    Fact,
    Outcome,
    RunAdmitted,
    RunFinished,
    SlotGranted,
    StepSuspended,
)
from penstock_core.pipeline.ir import Kind, Overlap, Pipeline
from penstock_core.run import effects
from penstock_core.run.effects import Effect
from penstock_testkit.simulation.broker import Broker

Attempt = tuple[str, str, int]


@dataclass(slots=True)
class Environment:
    """The world outside the log. The timers keep the earliest time that anybody armed for a run."""

    broker: Broker
    pipelines: dict[str, Pipeline]
    keep_earliest_timer: bool = True
    waiting: dict[Attempt, AttemptQueued] = field(default_factory=dict[Attempt, AttemptQueued])
    holding: dict[Attempt, AttemptQueued] = field(default_factory=dict[Attempt, AttemptQueued])
    active: dict[str, None] = field(default_factory=dict[str, None])
    queue: dict[str, None] = field(default_factory=dict[str, None])
    expected: dict[Attempt, None] = field(default_factory=dict[Attempt, None])
    children: dict[Attempt, None] = field(default_factory=dict[Attempt, None])
    cancelled_children: dict[Attempt, None] = field(default_factory=dict[Attempt, None])
    killed: dict[Attempt, None] = field(default_factory=dict[Attempt, None])
    registered: dict[Attempt, None] = field(default_factory=dict[Attempt, None])
    timers: dict[str, float] = field(default_factory=dict[str, float])

    def apply_effect(self, run_id: str, effect: Effect) -> None:
        """Bring about what an effect asks for."""
        match effect:
            case effects.AdmitRun():
                if run_id not in self.active:
                    self.queue[run_id] = None
            case effects.ReleaseRun():
                self.active.pop(run_id, None)
                self.queue.pop(run_id, None)
            case effects.NotifyCaller():
                pass
            case _:
                self._apply_attempt_effect((run_id, effect.key, effect.attempt), effect)

    def _apply_attempt_effect(self, attempt: Attempt, effect: Effect) -> None:
        run_id, key, number = attempt
        match effect:
            case effects.AcquireSlots():
                held = self.broker.find(run_id, f"step.{key}.{number}.queued")
                # Who asks after the grant does not know of it; the service's comparison with the log would undo it.
                if isinstance(held, AttemptQueued) and attempt not in self.holding and not self._known(attempt):
                    self.waiting[attempt] = held
            case effects.ReleaseSlots():
                self.waiting.pop(attempt, None)
                self.holding.pop(attempt, None)
            case effects.SubscribeEvent():
                self.expected[attempt] = None
            case effects.UnsubscribeEvent():
                self.expected.pop(attempt, None)
            case effects.StartChildRun():
                self.children[attempt] = None
            case effects.CancelChildRun():
                # Also of a run that is not started yet: it is born cancelled.
                self.cancelled_children[attempt] = None
            case effects.RegisterModels():
                self.registered[attempt] = None
            case _:
                self.killed[attempt] = None

    def grant(self, which: int) -> None:
        """The limiter goes on: a waiting attempt gets its slots, or one that has them is told so (again)."""
        told = [attempt for attempt in self.holding if not self._known(attempt)]
        free = [attempt for attempt, held in self.waiting.items() if self._free(held)]
        if told and (which % 2 or not free):
            run_id, key, number = told[which % len(told)]
            self.broker.append([SlotGranted(run_id=run_id, key=key, attempt=number)])
        elif free:
            attempt = free[which % len(free)]
            self.holding[attempt] = self.waiting.pop(attempt)

    def admit(self, which: int) -> None:
        """A run that waits for its place gets it, or is skipped where its pipeline says so."""
        for run_id in self.queue if which % 3 else reversed(list(self.queue)):
            full = len(self.active) >= (self.pipelines[run_id].max_active or 1)
            if not full:
                self.active[run_id] = None
                self.queue.pop(run_id)
                self.broker.append([RunAdmitted(run_id=run_id)])
                return
            if self.pipelines[run_id].overlap is Overlap.SKIP and not self.broker.find(run_id, "cancel"):
                skipped = RunFinished(run_id=run_id, outcome=Outcome.SKIPPED, error="another run is under way")
                self.broker.append([skipped])
                self.queue.pop(run_id)
                return
        for run_id in self.active:
            if not self.broker.find(run_id, "admitted"):
                self.broker.append([RunAdmitted(run_id=run_id)])

    def arm(self, run_id: str, at: float | None) -> None:
        """Have the clock told at a time."""
        if not self.keep_earliest_timer:
            self.timers.pop(run_id, None)
        if at is not None:
            self.timers[run_id] = min(at, self.timers.get(run_id, at))

    def fire_timer(self, which: int, again: int = 0) -> None:
        """A timer whose time has come fires, early enough or late, once or twice."""
        due = [run_id for run_id, at in self.timers.items() if at <= self.broker.at]
        if due:
            run_id = due[which % len(due)]
            if not again % 2:
                del self.timers[run_id]
            self.broker.append([ClockReached(run_id=run_id, at=math.ceil(self.broker.at * 1000) / 1000)])

    def pending_waits(self) -> list[StepSuspended]:
        """Waits that somebody could answer now: questions for ever, events while expected, runs that were started."""
        found: list[StepSuspended] = []
        for record in self.broker.records:
            fact = record.fact
            if isinstance(fact, StepSuspended):
                attempt = (fact.run_id, fact.key, fact.attempt)
                reached = {Kind.ASK: True, Kind.EVENT: attempt in self.expected, Kind.RUN: attempt in self.children}
                if reached.get(fact.kind, False):
                    found.append(fact)
        return found

    def forget(self, attempt: Attempt) -> None:
        """What was waited for has come."""
        self.expected.pop(attempt, None)
        self.children.pop(attempt, None)

    def leaked_resources(self) -> list[str]:
        """What is held or under way for attempts that are over."""
        found = [f"{attempt} has or wants slots" for attempt in (*self.holding, *self.waiting) if self._over(attempt)]
        found += [f"{run_id} has a place" for run_id in self.active if self.broker.find(run_id, "finished")]
        return found + [
            f"the run that {attempt} started goes on"
            for attempt in self.children
            if self._over(attempt) and attempt not in self.cancelled_children
        ]

    def _over(self, attempt: Attempt) -> bool:
        run_id, key, number = attempt
        end: Fact | None = self.broker.find(run_id, f"step.{key}.{number}.finished")
        return end is not None or self.broker.find(run_id, "finished") is not None

    def _known(self, attempt: Attempt) -> bool:
        run_id, key, number = attempt
        return self.broker.find(run_id, f"step.{key}.{number}.granted") is not None

    def _free(self, held: AttemptQueued) -> bool:
        for limit in held.limits:
            taken = sum(any(other.name == limit.name for other in one.limits) for one in self.holding.values())
            if taken >= (limit.most or 2):
                return False
        return True
