"""A scheduler of the simulation: it folds, decides, appends and acknowledges in steps, and may crash between any two.

It treats its cache like the scheduler service: a cached state is used only while no delivery went to another replica,
which a gap in the consumer's sequence shows; a rejected append means that another replica has decided, so the run is
folded from the log again; a message is acknowledged only after all resulting decisions are in the log and all effects
are applied.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from penstock_core.facts import ClockReached, RunRequested
from penstock_core.run.machine import Plan, RunState
from penstock_testkit.checks.invariants import InvariantError
from penstock_testkit.checks.state_machine import Machine
from penstock_testkit.simulation.broker import Broker, Consumer, Delivery
from penstock_testkit.simulation.environment import Environment

_ROUNDS = 100
"""Consecutive decisions on one run after which a scheduler counts as stuck."""


@dataclass(frozen=True, slots=True)
class SchedulerBehavior:
    """How scheduler replicas use their cache. The defaults are correct; the simulation detects other values."""

    detect_gaps: bool = True
    fold_after_conflict: bool = True
    restart_redelivered: bool = False
    fold_on_clock: bool = True
    effects_first: bool = True
    keep_earliest_timer: bool = True


@dataclass(slots=True)
class Cached:
    """A folded run: the facts delivered up to `seq`, and those that the replica wrote."""

    state: RunState
    seq: int


@dataclass(frozen=True, slots=True)
class SharedState:
    """State shared by all replicas."""

    machine: Machine
    behavior: SchedulerBehavior
    broker: Broker
    facts: Consumer
    plans: dict[str, Plan]
    environment: Environment


class Replica:
    """A scheduler that works in steps; others may act, or it may crash, between any two."""

    def __init__(self, shared: SharedState) -> None:
        self.shared = shared
        self.cached: dict[str, Cached] = {}
        self.ended: dict[str, RunState] = {}
        self.inbox: list[Delivery] = []
        self.unreachable = ""
        self._expected: int | None = None
        self._after_gap = 0
        self._round: Generator[None, None, None] | None = None

    @property
    def current(self) -> bool:
        """Whether no delivery went to another replica since the last step, so that its cached states are valid."""
        return self._round is None and not self.inbox and self._expected == self.shared.facts.next_seq

    @property
    def busy(self) -> bool:
        """Whether it has messages in flight."""
        return self._round is not None or bool(self.inbox)

    def advance(self) -> None:
        """Do the next step of the current round, or begin one."""
        if self._round is None and self.inbox:
            batch, self.inbox = self.inbox, []
            self._round = self._work(batch)
        if self._round is not None and next(self._round, self) is self:
            self._round = None

    def _work(self, batch: list[Delivery]) -> Generator[None, None, None]:
        runs: dict[str, list[Delivery]] = {}
        for delivery in batch:
            if self.shared.behavior.detect_gaps and self._expected not in (None, delivery.consumer_seq):
                self.cached.clear()
                self._after_gap = delivery.consumer_seq
            self._expected = delivery.consumer_seq + 1
            runs.setdefault(delivery.fact.run_id, []).append(delivery)
        for run_id, deliveries in runs.items():
            yield from self._handle(run_id, deliveries)

    def _handle(self, run_id: str, deliveries: list[Delivery]) -> Generator[None, None, None]:
        machine, broker = self.shared.machine, self.shared.broker
        cached = self._state(run_id, deliveries)
        refused: set[str] = set()
        for _ in range(_ROUNDS):
            facts = machine.decide(cached.state)
            if stuck := refused & {fact.tail for fact in facts}:
                raise InvariantError(f"{run_id}: {stuck} are in the log, and are decided again")
            yield
            if not facts:
                if not (yield from self._carry_out(run_id, cached.state)):
                    break
                cached = self._fold(run_id)
                continue
            how, self.unreachable = self.unreachable, ""
            written = [] if how == "before" else broker.append(facts)
            if how:
                # The answer is lost: evict the run, whose log may have grown, and redeliver its facts.
                self.cached.pop(run_id, None)
                for delivery in deliveries:
                    self.shared.facts.nack(delivery.seq)
                return
            yield
            for fact, was_written in zip(facts, written, strict=True):
                if was_written:
                    cached.state = machine.evolve(cached.state, fact)
            if not all(written) and self.shared.behavior.fold_after_conflict:
                refused = {fact.tail for fact, was_written in zip(facts, written, strict=True) if not was_written}
                cached = self._fold(run_id)
        else:
            raise InvariantError(f"{run_id}: no end of decisions after {_ROUNDS} rounds")
        self.shared.environment.arm(run_id, cached.state.alarm())
        yield
        if cached.state.finished is not None:
            self.ended[run_id] = cached.state
            self.cached.pop(run_id, None)
        for delivery in deliveries:
            self.shared.facts.ack(delivery.seq)
        yield

    def _carry_out(self, run_id: str, state: RunState) -> Generator[None, None, bool]:
        grown = False
        for effect in list(state.outbox) if self.shared.behavior.effects_first else ():
            yield
            grown |= self.shared.environment.apply_effect(run_id, effect)
        state.outbox.clear()
        return grown

    def _state(self, run_id: str, deliveries: list[Delivery]) -> Cached:
        cached = self.cached.get(run_id)
        if cached is None:
            first = deliveries[0]
            # After a gap in the batch, another replica may have been sent more of the run.
            complete = first.consumer_seq >= self._after_gap
            new = complete and (first.delivered == 1 or self.shared.behavior.restart_redelivered)
            if new and len(deliveries) == 1 and isinstance(first.fact, RunRequested) and not first.fact.reuses:
                # A run that was just requested and reuses nothing: its log need not be read.
                state = self.shared.machine.fold(run_id, self.shared.plans[run_id], [first.fact])
                cached = self.cached[run_id] = Cached(state, first.seq)
                return cached
            return self._fold(run_id)
        if self.shared.behavior.fold_on_clock and any(isinstance(one.fact, ClockReached) for one in deliveries):
            return self._fold(run_id)  # starts are not delivered, and a started attempt must not time out in the queue
        for delivery in deliveries:
            if delivery.seq > cached.seq:
                cached.state = self.shared.machine.evolve(cached.state, delivery.fact)
                cached.seq = delivery.seq
        return cached

    def _fold(self, run_id: str) -> Cached:
        records = self.shared.broker.read(run_id)
        state = self.shared.machine.fold(run_id, self.shared.plans[run_id], (record.fact for record in records))
        cached = self.cached[run_id] = Cached(state, records[-1].seq)
        return cached
