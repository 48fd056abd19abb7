"""Carries out what runs need of limits: places among the runs of their pipeline, and slots for their attempts.

In: effects of runs. Out: the book of limits changed, and the facts that follow in the logs of whichever runs they
concern: who frees a slot tells the next one. The consumer of that run's shard then wakes a scheduler; nobody polls.

Promises: everything that comes while one change is under way goes into the next one, as one compare-and-set, so any
number of replicas agree. The book owes a notice until it is known to be in the log: after a crash between the two the
next change, by any replica, sees to it. All facts are append-once, so saying one twice is as once.
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
from penstock_core.errors import PenstockError
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


class Step(Protocol):
    """What is needed of a step's, or an item's, state."""

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
        """The latest attempt that was held."""
        ...

    @property
    def limits(self) -> tuple[Limit, ...]:
        """What that one needs slots of."""
        ...

    @property
    def since(self) -> float:
        """Since when."""
        ...


class Planned(Protocol):
    """What is the same for all runs of a version."""

    @property
    def pipeline(self) -> Pipeline:
        """The version's pipeline."""
        ...

    @property
    def specs(self) -> Mapping[str, StepSpec]:
        """Definitions of the steps, by key of node."""
        ...


class Run(Protocol):
    """What is needed of a run's state."""

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
        """Its version."""
        ...

    def find(self, key: str) -> Step | None:
        """A step or an item."""
        ...


@dataclass(frozen=True, slots=True)
class Ask:
    """An attempt, or a run, needs slots; `overlap` is that of the run's pipeline."""

    waiter: Waiter
    overlap: Overlap | None = None


@dataclass(frozen=True, slots=True)
class Free:
    """It needs them no more."""

    place: SlotKey


Change = Callable[[LimitsLedger], None]


@dataclass(slots=True)
class _Pending:
    """The wishes of one run, and where the answer goes."""

    wishes: list[Ask | Free]
    done: asyncio.Future[_Outcome]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The book after a change, the reasons of runs that are skipped, by place, and facts that are in the logs now."""

    ledger: LimitsLedger
    skipped: dict[SlotKey, str]
    said: list[Fact]


class Limits:
    """The book of limits as one scheduler replica sees it."""

    def __init__(self, store: LimitsStore, sizes: LimitSizes, log: RunLog, clock: Callable[[], float]) -> None:
        self._store = store
        self._sizes = sizes
        self._log = log
        self._clock = clock
        self._kept: tuple[LimitsLedger, int] | None = None
        self._told: set[tuple[SlotKey, Notice]] = set()
        self._queue: list[_Pending] = []
        self._working: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self.short: Callable[[], None] = lambda: None
        """Called when the book must be compared with the log: there is room for those outside, or it is a new one."""

    @property
    def pools(self) -> frozenset[str]:
        """Names of the pools that have a size: their attempts need a slot of `pool:NAME` too."""
        return self._sizes.pools

    async def carry_out(self, run: Run, effects: Sequence[Effect], now: float) -> list[Fact]:
        """Do what effects of a run ask for.

        Returns:
            What followed for this run at once. It is in its log already.

        Raises:
            Unavailable: the server does not answer. Everything may be asked for again.
        """
        wishes = [wish for effect in effects if (wish := _wish(run, effect, now)) is not None]
        if not wishes:
            return []
        pending = _Pending(wishes, asyncio.get_running_loop().create_future())
        self._queue.append(pending)
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())
        outcome = await pending.done
        return await self._answer(run.run_id, [wish for wish in wishes if isinstance(wish, Ask)], outcome, now)

    async def stop(self) -> None:
        """Finish what is under way."""
        if self._working is not None:
            with contextlib.suppress(Exception):
                await self._working

    async def _work(self) -> None:
        while self._queue:
            part, self._queue = self._queue, []
            skipped: dict[SlotKey, str] = {}
            try:
                ledger, said = await self._change(
                    lambda ledger, part=part, skipped=skipped: _apply(ledger, part, skipped)
                )
            except Exception as error:
                for pending in part:
                    if not pending.done.done():
                        pending.done.set_exception(error)
            else:
                for pending in part:
                    if not pending.done.done():
                        pending.done.set_result(_Outcome(ledger, skipped, said))

    async def change(self, apply: Change) -> None:
        """Change the book by a function, which may be called several times; give out slots; see to what is owed."""
        await self._change(apply)

    async def _change(self, apply: Change) -> tuple[LimitsLedger, list[Fact]]:
        async with self._lock:
            ledger = await self._commit(apply)
        said = await self._pay(ledger)
        if not ledger.whole or slot_ledger.exhausted_limits(ledger):
            self.short()
        return ledger, said

    async def _commit(self, apply: Change) -> LimitsLedger:
        for attempt in range(_TRIES):
            fresh = self._kept is None
            before, revision = self._kept or await self._read()
            if before.settings > self._sizes.revision:
                await self._sizes.read()
            ledger, told = before.copy(), set(self._told)
            ledger.settings = max(ledger.settings, self._sizes.revision)
            slot_ledger.tell(ledger, told)
            apply(ledger)
            if ledger.whole:
                slot_ledger.serve(ledger, self._sizes.now, self._clock())
            slot_ledger.trim(ledger)
            self._kept = None  # until it is known what is stored
            if ledger == before and revision:
                if not fresh:  # perhaps another replica has written since what this change is about
                    continue
                self._kept = (ledger, revision)
                return ledger
            stored = await self._store.replace(ledger, revision)
            if stored is not None:
                self._kept = (ledger, stored)
                self._told -= told
                return ledger
            if attempt:  # others are at it as well: not all of them again at once
                await asyncio.sleep(random.uniform(0, _BACKOFF * min(attempt, 10)))  # noqa: S311 - spreads load
        raise PenstockError("the book of limits changes too fast to be changed here")

    async def _read(self) -> tuple[LimitsLedger, int]:
        ledger, revision = await self._store.read()
        return ledger if ledger is not None else LimitsLedger(), revision

    async def _pay(self, ledger: LimitsLedger) -> list[Fact]:
        """Append what places must be told; gives what is in the logs now, of ends only those that were not there."""
        now = self._clock()
        pending_notices = [notice for notice in ledger.pending_notices if notice not in self._told]
        facts = [_notice(place, notice, now) for place, notice in pending_notices]
        ends = [_refusal(w.place, name, now) for w in ledger.waiters.values() if (name := self._unknown(w))]
        written = await self._log.append([*facts, *ends]) if facts or ends else []
        self._told.update(pending_notices)
        return [*facts, *(end for end, new in zip(ends, written[len(facts) :], strict=True) if new)]

    async def _answer(self, run_id: str, asked: list[Ask], outcome: _Outcome, now: float) -> list[Fact]:
        """What became of wishes, and what else a run got by the same change, as facts in its log."""
        facts = {fact.tail: fact for fact in outcome.said if fact.run_id == run_id}
        for place in [ask.waiter.place for ask in asked]:
            if (why := outcome.skipped.get(place)) is not None:
                skipped = RunFinished(run_id=run_id, outcome=Outcome.SKIPPED, error=why)
                if (await self._log.append([skipped]))[0]:
                    facts[skipped.tail] = skipped
            elif place in outcome.ledger.holders:
                granted = _notice(place, Notice.GRANTED, now)
                facts[granted.tail] = granted
        return list(facts.values())

    def _unknown(self, waiter: Waiter) -> str | None:
        return None if waiter.cancel_requested else slot_ledger.unknown(waiter, self._sizes.now)


def _wish(run: Run, effect: Effect, now: float) -> Ask | Free | None:
    match effect:
        case AcquireSlots(key, attempt):
            step = run.find(key)
            if (
                step is None or not attempt == step.attempt == step.queued_attempt
            ):  # it is over, and its release follows
                return None
            priority = (run.requested.priority if run.requested else 0) + run.plan.specs[step.node].priority
            place = (run.run_id, key, attempt)
            return Ask(Waiter(place, slot_ledger.once_each(step.limits), priority, step.since or now))
        case ReleaseSlots(key, attempt):
            return Free((run.run_id, key, attempt))
        case AdmitRun():
            return run_wish(run.requested, run.plan.pipeline, now) if run.requested is not None else None
        case ReleaseRun():
            return Free((run.run_id, "", 0))
        case _:
            return None


def waiter_of(queued_attempt: AttemptQueued, now: float) -> Waiter:
    """A held attempt as one that waits."""
    place = (queued_attempt.run_id, queued_attempt.key, queued_attempt.attempt)
    return Waiter(
        place, slot_ledger.once_each(queued_attempt.limits), queued_attempt.priority, queued_attempt.since or now
    )


def run_wish(request: RunRequested, pipeline: Pipeline, now: float) -> Ask | None:
    """A run that asks for its place; None where its pipeline may have as many runs as it likes."""
    if pipeline.max_active is None:
        return None
    limit = overlap.run_limit(request.project, request.pipeline, pipeline.max_active)
    waiter = overlap.run_waiter(request.run_id, limit, request.priority, request.requested_at or now)
    return Ask(waiter, pipeline.overlap)


def _apply(ledger: LimitsLedger, part: list[_Pending], skipped: dict[SlotKey, str]) -> None:
    skipped.clear()
    for pending in part:
        for wish in pending.wishes:
            match wish:
                case Free(place):
                    slot_ledger.leave(ledger, place)
                case Ask(waiter, policy) if policy is not None:
                    why = overlap.admit(ledger, waiter, policy)
                    if why is not None:
                        skipped[waiter.place] = why
                case Ask(waiter):
                    slot_ledger.ask(ledger, waiter)


def _notice(place: SlotKey, notice: Notice, now: float) -> Fact:
    run_id, key, attempt = place
    if notice is Notice.CANCELLED:
        why = "a newer run of the pipeline takes its place (overlap=cancel_previous)"
        return CancelRequested(run_id=run_id, by=_SCHEDULER, reason=why, requested_at=now)
    return SlotGranted(run_id=run_id, key=key, attempt=attempt) if key else RunAdmitted(run_id=run_id)


def _refusal(place: SlotKey, name: str, now: float) -> Fact:
    """The end of an attempt whose limit nobody has given a number of slots."""
    advice = f'set it with `penstock limits set {name} SLOTS`, or write the number in the step: concurrency="{name}:2"'
    run_id, key, attempt = place
    return AttemptFinished(
        run_id=run_id,
        key=key,
        attempt=attempt,
        outcome=Outcome.FAILED,
        error=ErrorInfo(type=UNKNOWN, message=f"the limit {name!r} is not known here: {advice}"),
        finished_at=now,
    )
