"""States of runs: their facts folded, and cached so that the next read folds only new facts.

In: a run ID. Out: `FoldedRun`, the run's state with the times of the log. `views` makes its JSON.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from penstock_contracts import api
from penstock_contracts.api import RunReasons
from penstock_contracts.commands import AttemptProgress
from penstock_contracts.ports import VersionReader
from penstock_core import script_runs
from penstock_core.capacity import Available, Capacity
from penstock_core.facts import (
    ArtifactCommitted,
    AttemptFinished,
    AttemptQueued,
    AttemptRequested,
    AttemptStarted,
    RunDeleted,
    RunFinished,
    RunRequested,
    StepSuspended,
)
from penstock_core.pipeline.ir import Pipeline
from penstock_core.pipeline.values import Value
from penstock_core.ports import Recorded, RunLog
from penstock_core.run import machine
from penstock_core.run.explain import StepReason, explain, explain_one
from penstock_core.run.machine import Plan, RunState, Status
from penstock_gateway.runs.step_details import StepDetails, describe_cache

_PLANS = 64
_OF_ATTEMPTS = (AttemptQueued, AttemptRequested, StepSuspended, AttemptStarted, ArtifactCommitted, AttemptFinished)
_STEPS = 150_000
"""Most steps and items of all cached runs together; about a kilobyte each."""

_PART = 2_000
"""Facts that are folded without a pause for other requests."""


@dataclass(slots=True)
class FoldedRun:
    """A run folded up to `last_seq`.

    Attributes:
        state: read-only.
        started_at: when the first attempt was queued or requested.
        attempt_times: when attempts were requested, by step.
        outputs: those of a finished run with their references resolved, once they were requested.
        models: the model versions that its steps registered; see `run_models`.
        progress: what attempts reported last, by step, up to `progress_seq` of their stream; see `step_progress`.
    """

    state: RunState
    requested: RunRequested
    requested_at: float
    started_at: float | None = None
    finished_at: float | None = None
    last_seq: int = 0
    view: bytes = b""
    attempt_times: dict[str, float] = field(default_factory=dict[str, float])
    details: StepDetails = field(default_factory=StepDetails)
    outputs: dict[str, Value] | None = None
    models: list[api.RegisteredByRun] = field(default_factory=list[api.RegisteredByRun])
    progress: dict[str, AttemptProgress] = field(default_factory=dict[str, AttemptProgress])
    progress_seq: int = 0
    progress_complete: bool = False

    @property
    def name(self) -> str:
        """The state of the run as users see it."""
        if self.state.finished is not None:
            return self.state.finished.outcome.value
        return "running" if any(step.status is not Status.WAITING for step in self.state.steps.values()) else "queued"


@dataclass(slots=True)
class _Slot:
    """A run in the cache; its lock makes concurrent readers fold once."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    folded: FoldedRun | None = None


class RunStates:
    """Folded runs in a least-recently-used cache."""

    def __init__(self, log: RunLog, versions: VersionReader, keep: int) -> None:
        self._log = log
        self._versions = versions
        self._keep = keep
        self._slots: OrderedDict[str, _Slot] = OrderedDict()
        self._plans: OrderedDict[tuple[str, str, int], Plan] = OrderedDict()

    async def get(self, run_id: str) -> FoldedRun | None:
        """Return the present state of a run, or None without a readable request."""
        slot = self._slots.setdefault(run_id, _Slot())
        self._slots.move_to_end(run_id)
        try:
            async with slot.lock:
                after = slot.folded.last_seq if slot.folded else 0
                records = await self._log.read(run_id, after)
                if any(isinstance(record.fact, RunDeleted) for record in records):
                    slot.folded = None
                    return None
                if slot.folded is None:
                    slot.folded = await self._begin(run_id, records)
                if slot.folded is not None:
                    await _fold(slot.folded, records)
                return slot.folded
        finally:
            if slot.folded is None:
                self._slots.pop(run_id, None)
            self._shrink()

    def last_seq(self, run_id: str) -> int:
        """Return the sequence up to which a run is folded; 0 if it is not cached."""
        slot = self._slots.get(run_id)
        return slot.folded.last_seq if slot is not None and slot.folded is not None else 0

    def _shrink(self) -> None:
        """Evict the least recently used runs, but never the last one."""
        steps = sum(_size(slot) for slot in self._slots.values())
        while len(self._slots) > 1 and (len(self._slots) > self._keep or steps > _STEPS):
            _, slot = self._slots.popitem(last=False)
            steps -= _size(slot)

    async def _begin(self, run_id: str, records: list[Recorded]) -> FoldedRun | None:
        for record in records:
            if isinstance(record.fact, RunRequested):
                plan = await self._plan(record.fact)
                at = record.fact.requested_at or record.at
                started = at if record.fact.version == script_runs.VERSION else None
                return FoldedRun(RunState(run_id, plan), record.fact, at, started)
        return None

    async def _plan(self, request: RunRequested) -> Plan:
        if request.version == script_runs.VERSION:
            return Plan(script_runs.pipeline(request.pipeline))
        name = (request.project, request.pipeline, request.version)
        plan = self._plans.get(name)
        if plan is not None:
            self._plans.move_to_end(name)
            return plan
        version = await self._versions.get(*name)
        if version is None:
            # The run is shown without steps. The plan is not cached: the version may appear later.
            return Plan(Pipeline(name=request.pipeline))
        plan = Plan(version.pipeline)
        self._plans[name] = plan
        while len(self._plans) > _PLANS:
            self._plans.popitem(last=False)
        return plan


def _size(slot: _Slot) -> int:
    """Return the number of steps and items of a run in the cache."""
    steps = slot.folded.state.steps.values() if slot.folded else ()
    return sum(1 + (len(step.mapped.items) if step.mapped is not None else 0) for step in steps)


async def _fold(folded: FoldedRun, records: list[Recorded]) -> None:
    for start in range(0, len(records), _PART):
        if start:
            await asyncio.sleep(0)
        for record in records[start : start + _PART]:
            _fold_one(folded, record)
        folded.view = b""


def _fold_one(folded: FoldedRun, record: Recorded) -> None:
    folded.state = machine.evolve(folded.state, record.fact)
    folded.last_seq = record.seq
    folded.details.fold(record.fact, folded.state)
    if isinstance(record.fact, RunFinished) and folded.finished_at is None:
        folded.finished_at = record.fact.finished_at or record.at
    if folded.started_at is None and isinstance(record.fact, _OF_ATTEMPTS):
        folded.started_at = record.at
    if isinstance(record.fact, AttemptRequested):
        folded.attempt_times[record.fact.key] = record.at


def reasons(
    folded: FoldedRun, now: float, key: str | None = None, executors: Sequence[Capacity] | None = None
) -> RunReasons:
    """Return why the steps of a run are in their states; with a key, that step or item alone.

    `executors` are those that are connected; None if unknown.

    Raises:
        LookupError: the step does not exist.
    """
    if key is None:
        found = explain(folded.state, now, folded.attempt_times)
    else:
        one = explain_one(folded.state, key, now, folded.attempt_times.get(key))
        if one is None:
            raise LookupError(key)
        found = [one]
    return RunReasons(
        run_id=folded.requested.run_id,
        pipeline=folded.requested.pipeline,
        version=folded.requested.version,
        state=folded.name,
        at=now,
        steps=[
            api.StepReason(
                key=reason.key,
                state=reason.status.value,
                sentence=_sentence(folded, reason, now) + _without_executor(folded, reason, executors),
                caused_by=list(reason.caused_by),
                since=reason.since,
            )
            for reason in found
        ],
    )


def _without_executor(folded: FoldedRun, reason: StepReason, executors: Sequence[Capacity] | None) -> str:
    """Return that a queued attempt waits for an executor to be connected, if none of its pool is."""
    step = folded.state.find(reason.key)
    if reason.status is not Status.QUEUED or step is None or executors is None:
        return ""
    pool = folded.state.plan.specs[step.node].pool
    serving = Available(pools=(), executors=executors).of(pool)
    return "" if serving else f"; no executor of pool {pool!r} is connected"


def _sentence(folded: FoldedRun, reason: StepReason, now: float) -> str:
    """Return why a step is in its state; of a finished step, also what the cache did."""
    if reason.status not in machine.TERMINAL_STATUSES:
        return reason.sentence
    step = folded.state.find(reason.key)
    if step is None or step.from_run:
        return reason.sentence
    cache = describe_cache(step.cache, folded.state.plan.specs[step.node], folded.requested, now)
    if not cache or reason.status is Status.CACHED:
        return cache or reason.sentence
    return f"{reason.sentence}; cache: {cache}"
