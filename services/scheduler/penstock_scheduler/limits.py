"""Carries out the effects of runs on limits: admission of runs, and slots of attempts.

In: effects of runs. Out: a changed limits ledger, and the facts that follow in the logs of all runs concerned:
releasing a slot notifies the next waiter's run, whose shard's consumer then delivers that fact to a scheduler. Nothing
polls.

Requests that arrive during one change are combined into the next one, which is one compare-and-set, so any number of
replicas agree. The ledger keeps a notice until it is known to be in the log: after a crash between the two, the next
change by any replica appends it. All facts are append-once, so repeating one has no effect.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from penstock_adapters.nats.buckets.limits import LimitSizes, LimitsStore
from penstock_core import access
from penstock_core.errors import PenstockError, UnavailableError
from penstock_core.facts import (
    AttemptFinished,
    AttemptQueued,
    CancelRequested,
    ErrorInfo,
    Fact,
    Limit,
    Outcome,
    RunAdmitted,
    RunFinished,
    RunRequested,
    SlotGranted,
)
from penstock_core.limits import overlap, slot_ledger
from penstock_core.limits.slot_ledger import LimitsLedger, Notice, SlotKey, Waiter
from penstock_core.pipeline.ir import Overlap, Pipeline, StepSpec
from penstock_core.ports import RunLog
from penstock_core.run.effects import AcquireSlots, AdmitRun, Effect, ReleaseRun, ReleaseSlots

_TRIES = 200
_BACKOFF = 0.02
_SCHEDULER = access.service("scheduler")
UNKNOWN = "UnknownLimit"
_STALE = "the log of the run has facts that this replica does not know yet"


class Step(Protocol):
    """What limits need of the state of a step or an item."""

    @property
    def node(self) -> str:
        """Key of its node."""
        ...

    @property
    def attempt(self) -> int:
        """Its latest attempt."""
        ...

    @property
    def queued_attempt(self) -> int:
        """The latest attempt that was queued for limits."""
        ...

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The limits of that attempt."""
        ...

    @property
    def since(self) -> float:
        """Since when it waits."""
        ...


class Planned(Protocol):
    """What limits need of the plan of a pipeline version."""

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline."""
        ...

    @property
    def specs(self) -> Mapping[str, StepSpec]:
        """Definitions of the steps, by key of node."""
        ...


class Run(Protocol):
    """What limits need of the state of a run."""

    @property
    def run_id(self) -> str:
        """Its id."""
        ...

    @property
    def requested(self) -> RunRequested | None:
        """Its request."""
        ...

    @property
    def plan(self) -> Planned:
        """Its plan."""
        ...

    def find(self, key: str) -> Step | None:
        """Return a step or an item."""
        ...


@dataclass(frozen=True, slots=True)
class SlotRequest:
    """A request for slots by an attempt or a run; of a run, with the overlap policies of its limits in their order."""

    waiter: Waiter
    policies: tuple[Overlap, ...] = ()


@dataclass(frozen=True, slots=True)
class SlotRelease:
    """A release of slots."""

    slot_key: SlotKey


Change = Callable[[LimitsLedger], None]


@dataclass(slots=True)
class _Pending:
    """The requests of one run, and the future of their outcome."""

    requests: list[SlotRequest | SlotRelease]
    done: asyncio.Future[_Outcome]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The ledger after a change, why runs were skipped, by key, and the facts that are in the logs now."""

    ledger: LimitsLedger
    skipped: dict[SlotKey, str]
    facts: list[Fact]


class Limits:
    """The limits ledger as one scheduler replica sees it."""

    def __init__(self, store: LimitsStore, sizes: LimitSizes, log: RunLog, clock: Callable[[], float]) -> None:
        self._store = store
        self._sizes = sizes
        self._log = log
        self._clock = clock
        self._cached: tuple[LimitsLedger, int] | None = None
        self._appended: set[tuple[SlotKey, Notice]] = set()
        self._queue: list[_Pending] = []
        self._working: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self.needs_comparison: Callable[[], None] = lambda: None
        """Called when the ledger must be compared with the log: it has room for waiters outside, or it is new."""

    @property
    def pools(self) -> frozenset[str]:
        """Pools with a limited size: their attempts need a slot of `pool:NAME`."""
        return self._sizes.pools

    async def carry_out(self, run: Run, effects: Sequence[Effect], now: float) -> list[Fact]:
        """Carry out the effects of a run on limits.

        Returns:
            The facts of this run that followed, which are in its log already.

        Raises:
            UnavailableError: the server does not answer, or the state of the run is stale. A retry is safe, with the
                state read from the log.
        """
        requests = [request for effect in effects if (request := _request_of(run, effect, now)) is not None]
        if not requests:
            return []
        pending = _Pending(requests, asyncio.get_running_loop().create_future())
        self._queue.append(pending)
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())
        outcome = await pending.done
        return await self._answer(
            run.run_id, [request for request in requests if isinstance(request, SlotRequest)], outcome, now
        )

    async def stop(self) -> None:
        """Finish the change in progress."""
        if self._working is not None:
            with contextlib.suppress(Exception):
                await self._working

    async def _work(self) -> None:
        while self._queue:
            part, self._queue = self._queue, []
            skipped: dict[SlotKey, str] = {}
            try:
                ledger, facts = await self._change(
                    lambda ledger, part=part, skipped=skipped: _apply(ledger, part, skipped)
                )
            except Exception as error:
                for pending in part:
                    if not pending.done.done():
                        pending.done.set_exception(error)
            else:
                for pending in part:
                    if not pending.done.done():
                        pending.done.set_result(_Outcome(ledger, skipped, facts))

    async def change(self, apply: Change) -> None:
        """Change the ledger by a function, which may be called several times; then grant slots and append notices."""
        await self._change(apply)

    async def _change(self, apply: Change) -> tuple[LimitsLedger, list[Fact]]:
        async with self._lock:
            ledger = await self._commit(apply)
        facts = await self._append_notices(ledger)
        if not ledger.whole or slot_ledger.exhausted_limits(ledger):
            self.needs_comparison()
        return ledger, facts

    async def _commit(self, apply: Change) -> LimitsLedger:
        for attempt in range(_TRIES):
            fresh = self._cached is None
            before, revision = self._cached or await self._read()
            if before.settings > self._sizes.revision:
                await self._sizes.read()
            ledger, appended = before.copy(), set(self._appended)
            ledger.settings = max(ledger.settings, self._sizes.revision)
            slot_ledger.drop_notices(ledger, appended)
            apply(ledger)
            if ledger.whole:
                slot_ledger.serve(ledger, self._sizes.now, self._clock())
            slot_ledger.trim(ledger)
            self._cached = None  # until the stored ledger is known
            if ledger == before and revision:
                if not fresh:  # another replica may have written since
                    continue
                self._cached = (ledger, revision)
                return ledger
            stored = await self._store.replace(ledger, revision)
            if stored is not None:
                self._cached = (ledger, stored)
                self._appended -= appended
                return ledger
            if attempt:  # other replicas retry too: spread the retries
                await asyncio.sleep(random.uniform(0, _BACKOFF * min(attempt, 10)))  # noqa: S311 - spreads load
        raise PenstockError("the limits ledger changes too fast to be changed by this replica: retry")

    async def _read(self) -> tuple[LimitsLedger, int]:
        ledger, revision = await self._store.read()
        return ledger if ledger is not None else LimitsLedger(), revision

    async def _append_notices(self, ledger: LimitsLedger) -> list[Fact]:
        """Append the pending notices. Returns what is in the logs now, but of ends only new ones."""
        now = self._clock()
        pending_notices = [notice for notice in ledger.pending_notices if notice not in self._appended]
        facts = [_notice(slot_key, notice, now) for slot_key, notice in pending_notices]
        ends = [_refusal(w.slot_key, name, now) for w in ledger.waiters.values() if (name := self._unknown(w))]
        written = await self._log.append([*facts, *ends]) if facts or ends else []
        self._appended.update(pending_notices)
        return [*facts, *(end for end, new in zip(ends, written[len(facts) :], strict=True) if new)]

    async def _answer(self, run_id: str, asked: list[SlotRequest], outcome: _Outcome, now: float) -> list[Fact]:
        """Return what became of requests, and what else the run got by the same change, as facts in its log."""
        facts = {fact.tail: fact for fact in outcome.facts if fact.run_id == run_id}
        for slot_key in [ask.waiter.slot_key for ask in asked]:
            if (why := outcome.skipped.get(slot_key)) is not None:
                end = await self._skip(run_id, why)
                facts[end.tail] = end
            elif slot_key in outcome.ledger.holders:
                granted = _notice(slot_key, Notice.GRANTED, now)
                if isinstance(granted, RunAdmitted) and await self._has_finished(run_id):
                    raise UnavailableError(_STALE)
                facts[granted.tail] = granted
        return list(facts.values())

    async def _skip(self, run_id: str, reason: str) -> Fact:
        """Finish a run as skipped, unless it was cancelled, admitted or finished before."""
        end = RunFinished(run_id=run_id, outcome=Outcome.SKIPPED, error=reason)
        if not await self._log.append_unless(end, (CancelRequested, RunAdmitted, RunFinished)):
            raise UnavailableError(_STALE)
        return end

    async def _has_finished(self, run_id: str) -> bool:
        return any(isinstance(entry.fact, RunFinished) for entry in await self._log.read(run_id))

    def _unknown(self, waiter: Waiter) -> str | None:
        return None if waiter.cancel_requested else slot_ledger.unknown(waiter, self._sizes.now)


def _request_of(run: Run, effect: Effect, now: float) -> SlotRequest | SlotRelease | None:
    match effect:
        case AcquireSlots(key, attempt):
            step = run.find(key)
            if step is None or not attempt == step.attempt == step.queued_attempt:
                return None  # it has ended, and its release follows
            priority = (run.requested.priority if run.requested else 0) + run.plan.specs[step.node].priority
            slot_key = (run.run_id, key, attempt)
            return SlotRequest(Waiter(slot_key, slot_ledger.once_each(step.limits), priority, step.since or now))
        case ReleaseSlots(key, attempt):
            return SlotRelease((run.run_id, key, attempt))
        case AdmitRun():
            return admission_request(run.requested, run.plan.pipeline, now) if run.requested is not None else None
        case ReleaseRun():
            return SlotRelease((run.run_id, "", 0))
        case _:
            return None


def waiter_of(queued_attempt: AttemptQueued, now: float) -> Waiter:
    """Return the waiter of a queued attempt."""
    slot_key = (queued_attempt.run_id, queued_attempt.key, queued_attempt.attempt)
    return Waiter(
        slot_key, slot_ledger.once_each(queued_attempt.limits), queued_attempt.priority, queued_attempt.since or now
    )


def admission_request(request: RunRequested, pipeline: Pipeline, now: float) -> SlotRequest | None:
    """Return the request of a run for admission; None if neither its pipeline nor its deployment limits active runs."""
    limits = overlap.limits_of(request, pipeline)
    if not limits:
        return None
    waiter = overlap.run_waiter(request.run_id, limits, request.priority, request.requested_at or now)
    return SlotRequest(waiter, tuple(one.overlap for one in limits))


def _apply(ledger: LimitsLedger, part: list[_Pending], skipped: dict[SlotKey, str]) -> None:
    skipped.clear()
    for pending in part:
        for request in pending.requests:
            match request:
                case SlotRelease(slot_key):
                    slot_ledger.release(ledger, slot_key)
                case SlotRequest(waiter, policies) if policies:
                    why = overlap.admit(ledger, waiter, policies)
                    if why is not None:
                        skipped[waiter.slot_key] = why
                case SlotRequest(waiter):
                    slot_ledger.enqueue(ledger, waiter)


def _notice(slot_key: SlotKey, notice: Notice, now: float) -> Fact:
    run_id, key, attempt = slot_key
    if notice is Notice.CANCELLED:
        why = "replaced by a newer run (overlap=cancel_previous)"
        return CancelRequested(run_id=run_id, by=_SCHEDULER, reason=why, requested_at=now)
    return SlotGranted(run_id=run_id, key=key, attempt=attempt) if key else RunAdmitted(run_id=run_id)


def _refusal(slot_key: SlotKey, name: str, now: float) -> Fact:
    """Return the end of an attempt whose limit has an unknown number of slots."""
    advice = f'set it with `penstock limits set {name} SLOTS`, or define it in the step: concurrency="{name}:2"'
    run_id, key, attempt = slot_key
    return AttemptFinished(
        run_id=run_id,
        key=key,
        attempt=attempt,
        outcome=Outcome.FAILED,
        error=ErrorInfo(type=UNKNOWN, message=f"the limit {name!r} is not set: {advice}"),
        finished_at=now,
    )
