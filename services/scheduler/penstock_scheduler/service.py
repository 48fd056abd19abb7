"""The scheduler: folds the facts of runs and appends what they decide. It never imports or runs user code.

In: deliveries of the shards' consumers. Out: facts appended to the log, then acknowledgements.

A fact is acknowledged only after everything that follows from it is in the log. A cached state is used only as long as
no delivery of its shard went to another replica, which a gap in the consumer's sequence shows; otherwise the run is
folded from the log. So correctness depends on the log alone, and any number of replicas may run.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from penstock_adapters.nats.consumer import Delivery
from penstock_contracts import fact_codec, subjects
from penstock_contracts.ports import VersionReader
from penstock_core import ids, script_runs
from penstock_core.errors import PenstockError, UnavailableError
from penstock_core.facts import ClockReached, Fact, Outcome, RunFinished, RunRequested
from penstock_core.pipeline import ir_check
from penstock_core.ports import RunLog
from penstock_core.run import machine
from penstock_core.run.machine import Plan, RunState
from penstock_scheduler.fact_writer import append

_ROUND = 400
"""Most runs in one round, so that a backlog does not delay its first acknowledgements."""

_NEW = 60.0
"""Seconds within which the request of a run is delivered; an older one may have been delivered before."""

_FACTS = 4_000
"""Facts appended at once for one run; a wider fan-out is split."""


class DeliveryHandling(Protocol):
    """Acknowledges deliveries, or returns them."""

    async def ack(self, delivery: Delivery) -> None:
        """Acknowledge the delivery."""
        ...

    async def retry(self, delivery: Delivery, delay: float) -> None:
        """Have it redelivered later."""
        ...

    async def park(self, delivery: Delivery, error: str) -> None:
        """Send an unreadable message to the dead-letter stream."""
        ...

    async def is_stored(self, delivery: Delivery) -> bool:
        """Return whether the leader of the log has the message of a delivery."""
        ...

    def warn(self, event: str, **details: object) -> None:
        """Log a warning."""
        ...


class Effects(Protocol):
    """Carries out effects outside the logs of runs."""

    async def register(self, state: RunState) -> None:
        """Carry out the effects that must come before further decisions."""
        ...

    async def carry_out(self, state: RunState) -> list[Fact]:
        """Carry out the effects in the outbox, and empty it; returns the facts of this run that followed."""
        ...

    async def set_alarm(self, state: RunState, armed: float | None) -> float | None:
        """Set the run's timer to when its next timer expires; returns that time."""
        ...


@dataclass(slots=True)
class _Work:
    """What one round brings for one run."""

    deliveries: list[Delivery] = field(default_factory=list[Delivery])
    facts: list[tuple[int, Fact]] = field(default_factory=list[tuple[int, Fact]])
    refused: set[str] = field(default_factory=set[str])


@dataclass(slots=True)
class _Cached:
    """A folded run: every fact of its log up to `seq` that others wrote, and all facts of this replica.

    `armed` is the time for which its timer is set, as far as this replica knows.
    """

    state: RunState
    seq: int
    armed: float | None = None


class Scheduler:
    """Handles rounds of deliveries; see the module."""

    def __init__(
        self, log: RunLog, versions: VersionReader, edges: DeliveryHandling, outside: Effects, *, keep: int = 4_000
    ) -> None:
        self._log = log
        self._outside = outside
        self._versions = versions
        self._edges = edges
        self._keep = keep
        self._runs: OrderedDict[str, _Cached] = OrderedDict()
        self._plans: OrderedDict[tuple[str, str, int], Plan] = OrderedDict()
        self._expected: dict[str, int] = {}
        self._after_gap: dict[str, int] = {}
        self._shards: dict[str, set[str]] = {}
        self.horizon = 0
        """Log sequence below which a first delivery may be a repetition that others have answered already."""

    def forget(self, shards: Iterable[int]) -> None:
        """Drop all cached runs of these shards, and do not expect the next delivery to follow on the last one."""
        for name in map(subjects.scheduler_consumer, shards):
            self._expected.pop(name, None)
            for run_id in list(self._shards.get(name, ())):
                self._drop(run_id)

    async def handle(self, deliveries: Iterable[Delivery]) -> None:
        """Handle deliveries: fold, decide, append, acknowledge."""
        try:
            await self._handle(deliveries)
        except BaseException:
            # The sequences of all these deliveries are counted, but not all are folded: cached runs may lack facts, and
            # redeliveries would be taken for repetitions.
            self._runs.clear()
            self._shards.clear()
            raise

    async def _handle(self, deliveries: Iterable[Delivery]) -> None:
        work: dict[str, _Work] = {}
        for delivery in deliveries:
            self._watch_gap(delivery)
            fact = fact_codec.decode(delivery.subject, delivery.data)
            if isinstance(fact, fact_codec.UnreadableFact):
                await self._edges.park(delivery, fact.why)
                placeholder_fact = fact_codec.placeholder_fact(fact)
                if placeholder_fact is None:
                    await self._edges.ack(delivery)
                    continue
                fact = placeholder_fact
            entry = work.setdefault(fact.run_id, _Work())
            entry.deliveries.append(delivery)
            entry.facts.append((delivery.stream_seq, fact))
        items = list(work.items())
        for start in range(0, len(items), _ROUND):
            await self._round(dict(items[start : start + _ROUND]))

    async def _round(self, work: dict[str, _Work]) -> None:
        ready: dict[str, RunState] = {}
        for run_id, entry in work.items():
            try:
                state = await self._state(run_id, entry)
            except Exception as error:
                # A problem with one run must not delay the others.
                await self._put_off(run_id, entry, error)
                continue
            if state is None:
                await self._acknowledge(entry)
            else:
                ready[run_id] = state
        await self._decide(work, ready)

    async def _decide(self, work: dict[str, _Work], ready: dict[str, RunState]) -> None:
        """Append the decisions of all runs together, until nothing follows; then acknowledge."""
        while ready:
            decided: dict[str, list[Fact]] = {}
            for run_id, state in list(ready.items()):
                try:
                    if state.outbox:
                        await self._outside.register(state)
                    decided[run_id] = machine.decide(state)[:_FACTS]
                except Exception as error:
                    # A failure in one run, ours or outside, must not delay the others.
                    del ready[run_id]
                    await self._put_off(run_id, work[run_id], error)
            quiet = [run_id for run_id, facts in decided.items() if not facts]
            completed = await asyncio.gather(*(self._complete(run_id, work[run_id], ready[run_id]) for run_id in quiet))
            for run_id, is_complete in zip(quiet, completed, strict=True):
                if is_complete:
                    del ready[run_id]
            written, failed = await append(self._log, {run_id: decided[run_id] for run_id in ready if decided[run_id]})
            for run_id, error in failed.items():
                del ready[run_id]
                await self._put_off(run_id, work[run_id], error)
            refused: set[str] = set()
            for fact, was_written in written:
                if was_written:
                    machine.evolve(ready[fact.run_id], fact)
                else:
                    refused.add(fact.run_id)
                    work[fact.run_id].refused.add(fact.tail)
            for run_id in refused:
                await self._fold_again(run_id, work[run_id], ready)

    async def _fold_again(self, run_id: str, entry: _Work, ready: dict[str, RunState]) -> None:
        """Fold a run from the log again, because another replica has decided; fails if there is no progress."""
        del ready[run_id]
        try:
            state = await self._fold(run_id, entry)
            if state is None:
                await self._acknowledge(entry)
            elif any(fact.tail in entry.refused for fact in machine.decide(state)):
                raise PenstockError("the log refused a fact that it does not contain")
            else:
                ready[run_id] = state
        except Exception as error:
            await self._put_off(run_id, entry, error)

    def _is_new(self, entry: _Work) -> bool:
        """Whether a run was just requested, so that its log has no other fact that was delivered before."""
        delivery = entry.deliveries[0]
        return (
            len(entry.facts) == 1
            and isinstance(entry.facts[0][1], RunRequested)
            # The log may have reused results, or a cancel by the calling run, before the request.
            and not entry.facts[0][1].reuses
            and entry.facts[0][1].caller is None
            # Nor can it have an end, as the log of a restored run does.
            and delivery.at - entry.facts[0][1].requested_at < _NEW
            and delivery.delivered == 1
            and fact_codec.RESTORED not in delivery.headers
            and delivery.stream_seq > self.horizon
            # Nor may another replica have been sent more of the run, which a gap after the request shows.
            and delivery.consumer_seq >= self._after_gap[delivery.consumer]
        )

    async def _state(self, run_id: str, entry: _Work) -> RunState | None:
        """Return the run's state with these facts folded; None if there is nothing to decide."""
        if any(isinstance(fact, ClockReached) for _, fact in entry.facts):
            # Whether an attempt has started determines whether it is late, and schedulers do not receive that fact.
            self._drop(run_id)
        cached = self._runs.get(run_id)
        if cached is None:
            if self._is_new(entry):
                seq, requested = entry.facts[0]
                assert isinstance(requested, RunRequested)  # noqa: S101 - what `_is_new` says
                return await self._begin(requested, seq)
            return await self._fold(run_id, entry)
        self._runs.move_to_end(run_id)
        for seq, fact in entry.facts:
            if seq > cached.seq:
                machine.evolve(cached.state, fact)
                cached.seq = seq
        return cached.state

    async def _begin(self, requested: RunRequested, seq: int) -> RunState | None:
        """Fold a run that was just requested, without reading its log."""
        plan = await self._plan(requested)
        if plan is None:
            return None
        state = machine.fold(requested.run_id, plan, [requested])
        self._remember(requested.run_id, _Cached(state, seq))
        return state

    async def _fold(self, run_id: str, entry: _Work) -> RunState | None:
        self._drop(run_id)
        recorded = await self._log.read(run_id)
        latest = max(entry.deliveries, key=lambda delivery: delivery.stream_seq)
        if (not recorded or recorded[-1].seq < latest.stream_seq) and await self._edges.is_stored(latest):
            # Any replica of the stream answers reads. One that lags lacks these facts: they would be acknowledged
            # without the decisions that follow from them.
            raise UnavailableError("the replica of the log that answered lacks facts that were delivered")
        requested = next((entry.fact for entry in recorded if isinstance(entry.fact, RunRequested)), None)
        if requested is None:
            if recorded:
                self._edges.warn("facts of a run that was never requested", run=run_id, facts=len(recorded))
            return None
        plan = await self._plan(requested)
        if plan is None:
            return None
        state = machine.fold(run_id, plan, (entry.fact for entry in recorded))
        self._remember(run_id, _Cached(state, recorded[-1].seq))
        return state

    async def _plan(self, requested: RunRequested) -> Plan | None:
        if requested.version == script_runs.VERSION:
            return None  # recorded by a script: it has finished, and nothing is to be decided
        name = (requested.project, requested.pipeline, requested.version)
        plan = self._plans.get(name)
        if plan is not None:
            return plan
        try:
            version = await self._versions.get(*name)
            if version is None:
                raise PenstockError(f"pipeline {requested.pipeline!r} has no version {requested.version}")
            ir_check.check(version.pipeline)
        except UnavailableError:
            raise
        except PenstockError as error:
            self._edges.warn("run refused", run=requested.run_id, error=str(error))
            await self._log.append([RunFinished(run_id=requested.run_id, outcome=Outcome.FAILED, error=str(error))])
            return None
        plan = self._plans[name] = Plan(version.pipeline)
        while len(self._plans) > 200:
            self._plans.popitem(last=False)
        return plan

    async def _complete(self, run_id: str, entry: _Work, state: RunState) -> bool:
        """Carry out effects after the last decision. Returns False if facts follow from them."""
        try:
            if state.outbox:
                facts = await self._outside.carry_out(state)
                if facts:
                    for fact in facts:
                        machine.evolve(state, fact)
                    return False
            cached = self._runs.get(run_id)
            armed = await self._outside.set_alarm(state, cached.armed if cached is not None else None)
            if cached is not None:
                cached.armed = armed
        except Exception as error:
            await self._put_off(run_id, entry, error)
            return True
        if state.finished is not None:
            self._drop(run_id)
        await self._acknowledge(entry)
        return True

    async def _acknowledge(self, entry: _Work) -> None:
        for delivery in entry.deliveries:
            await self._edges.ack(delivery)

    async def _put_off(self, run_id: str, entry: _Work, error: Exception) -> None:
        """Drop the run, whose log may have grown in the meantime, and have its facts redelivered later."""
        self._drop(run_id)
        self._edges.warn("decision postponed", run=run_id, error=str(error))
        delay = 1.0 if isinstance(error, UnavailableError) else 10.0
        for delivery in entry.deliveries:
            await self._edges.retry(delivery, delay)

    def _watch_gap(self, delivery: Delivery) -> None:
        """Drop the cached runs of a shard if one of its deliveries went to another replica."""
        if delivery.consumer_seq != self._expected.get(delivery.consumer):
            for run_id in list(self._shards.get(delivery.consumer, ())):
                self._drop(run_id)
            self._after_gap[delivery.consumer] = delivery.consumer_seq
        self._expected[delivery.consumer] = delivery.consumer_seq + 1

    def _remember(self, run_id: str, cached: _Cached) -> None:
        self._runs[run_id] = cached
        self._shards.setdefault(_consumer(run_id), set()).add(run_id)
        while len(self._runs) > self._keep:
            self._drop(next(iter(self._runs)))

    def _drop(self, run_id: str) -> None:
        if self._runs.pop(run_id, None) is not None:
            self._shards[_consumer(run_id)].discard(run_id)


def _consumer(run_id: str) -> str:
    return subjects.scheduler_consumer(int(ids.shard(run_id)))
