"""Targets of the effects of runs in the simulation: limits, admission, event subscriptions, child runs, timers, kills.

Each effect may be repeated at any time by a replica that has just folded the log, even when it is outdated.
`leaked_resources` returns what was not released.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from penstock_core import ownership
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
    """Everything outside the log. Timers keep the earliest armed time of each run."""

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

    def apply_effect(self, run_id: str, effect: Effect) -> bool:
        """Apply an effect; return whether the run must be read from the log again."""
        match effect:
            case effects.AdmitRun():
                return self._request_admission(run_id)
            case effects.ReleaseRun():
                self.active.pop(run_id, None)
                self.queue.pop(run_id, None)
            case effects.NotifyCaller():
                pass
            case _:
                self._apply_attempt_effect((run_id, effect.key, effect.attempt), effect)
        return False

    def _request_admission(self, run_id: str) -> bool:
        # A request after the admission comes from an unaware replica; reconciliation with the log would undo it.
        if self.broker.find(run_id, "admitted") or self.broker.find(run_id, "finished"):
            return True
        if run_id in self.active or run_id in self.queue:
            return False
        pipeline = self.pipelines[run_id]
        full = len(self.active) + len(self.queue) >= (pipeline.max_active or 1)
        if full and pipeline.overlap is Overlap.SKIP:
            if not self.broker.find(run_id, "cancel"):
                skipped = RunFinished(run_id=run_id, outcome=Outcome.SKIPPED, error="another run is under way")
                self.broker.append([skipped])
            return True
        self.queue[run_id] = None
        return False

    def _apply_attempt_effect(self, attempt: Attempt, effect: Effect) -> None:
        run_id, key, number = attempt
        match effect:
            case effects.AcquireSlots():
                held = self.broker.find(run_id, f"step.{key}.{number}.queued")
                # A request after the grant comes from an unaware replica; reconciliation with the log would undo it.
                if isinstance(held, AttemptQueued) and attempt not in self.holding and not self._known(attempt):
                    self.waiting[attempt] = held
            case effects.ReleaseSlots() if self.process_left(attempt):
                pass
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
                # A run that is not started yet is created as cancelled.
                self.cancelled_children[attempt] = None
            case effects.RegisterModels():
                self.registered[attempt] = None
            case _:
                self.killed[attempt] = None

    def process_left(self, attempt: Attempt) -> bool:
        """Return whether a process of a finished attempt may be left."""
        run_id, key, number = attempt
        facts = [self.broker.find(run_id, f"step.{key}.{number}.{tail}") for tail in ("started", "finished", "stopped")]
        return not ownership.is_stopped(*facts, certain=True)

    def grant(self, which: int) -> None:
        """Grant slots to a waiting attempt, or repeat the grant of one that has them."""
        repeatable = [attempt for attempt in self.holding if not self._known(attempt)]
        free = [attempt for attempt, held in self.waiting.items() if self._free(held)]
        if repeatable and (which % 2 or not free):
            run_id, key, number = repeatable[which % len(repeatable)]
            self.broker.append([SlotGranted(run_id=run_id, key=key, attempt=number)])
        elif free:
            attempt = free[which % len(free)]
            self.holding[attempt] = self.waiting.pop(attempt)

    def admit(self, which: int) -> None:
        """Admit a queued run if fewer than `max_active` runs are active."""
        for run_id in self.queue if which % 3 else reversed(list(self.queue)):
            if len(self.active) < (self.pipelines[run_id].max_active or 1):
                self.active[run_id] = None
                self.queue.pop(run_id)
                self.broker.append([RunAdmitted(run_id=run_id)])
                return
        for run_id in self.active:
            if not self.broker.find(run_id, "admitted"):
                self.broker.append([RunAdmitted(run_id=run_id)])

    def arm(self, run_id: str, at: float | None) -> None:
        """Arm a timer."""
        if not self.keep_earliest_timer:
            self.timers.pop(run_id, None)
        if at is not None:
            self.timers[run_id] = min(at, self.timers.get(run_id, at))

    def fire_timer(self, which: int, again: int = 0) -> None:
        """Fire a due timer, in time or late, once or twice."""
        due = [run_id for run_id, at in self.timers.items() if at <= self.broker.at]
        if due:
            run_id = due[which % len(due)]
            if not again % 2:
                del self.timers[run_id]
            self.broker.append([ClockReached(run_id=run_id, at=math.ceil(self.broker.at * 1000) / 1000)])

    def pending_waits(self) -> list[StepSuspended]:
        """Return the waits that can be answered now: questions always, events while subscribed, started child runs."""
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
        """Remove a finished wait."""
        self.expected.pop(attempt, None)
        self.children.pop(attempt, None)

    def leaked_resources(self) -> list[str]:
        """Return resources that finished attempts still hold."""
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
