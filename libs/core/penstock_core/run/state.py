"""The state of a run: its steps, the transition table of their statuses, and its timers. Only `evolve` changes it."""

from __future__ import annotations

import functools
import heapq
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from penstock_core.facts import (
    AttemptFinished,
    CacheReport,
    CancelRequested,
    ErrorInfo,
    Limit,
    Outcome,
    RunFinished,
    RunRequested,
    StepReused,
    StepSuspended,
)
from penstock_core.pipeline.ir import Phase
from penstock_core.pipeline.values import Value
from penstock_core.run.effects import Effect
from penstock_core.run.plan import Plan


class Status(StrEnum):
    """The status of a step or of an item of a mapped step. A mapped step is running while its items run."""

    WAITING = "waiting"
    QUEUED_FOR_LIMIT = "queued_for_limit"
    QUEUED = "queued"
    RUNNING = "running"
    SUSPENDED = "suspended"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    CACHED = "cached"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


TERMINAL_STATUSES = frozenset({Status.SUCCEEDED, Status.CACHED, Status.FAILED, Status.SKIPPED, Status.CANCELLED})
SUCCESSFUL_STATUSES = frozenset({Status.SUCCEEDED, Status.CACHED})
IN_FLIGHT = frozenset({Status.QUEUED_FOR_LIMIT, Status.QUEUED, Status.RUNNING, Status.SUSPENDED})

_ENDS = {
    "succeeded": Status.SUCCEEDED,
    "cached": Status.CACHED,
    "retry": Status.RETRYING,
    "failed": Status.FAILED,
    "cancelled": Status.CANCELLED,
}

# (status, event) -> status. Events that are not in the table change nothing.
TRANSITIONS: dict[tuple[Status, str], Status] = {
    (Status.WAITING, "queued_for_limit"): Status.QUEUED_FOR_LIMIT,
    (Status.WAITING, "requested"): Status.QUEUED,
    (Status.WAITING, "suspended"): Status.SUSPENDED,
    (Status.WAITING, "expanded"): Status.RUNNING,
    (Status.WAITING, "reused"): Status.CACHED,
    (Status.WAITING, "failed"): Status.FAILED,
    (Status.WAITING, "skipped"): Status.SKIPPED,
    (Status.WAITING, "cancelled"): Status.CANCELLED,
    (Status.QUEUED_FOR_LIMIT, "requested"): Status.QUEUED,
    (Status.QUEUED, "started"): Status.RUNNING,
    **{(status, event): after for status in sorted(IN_FLIGHT) for event, after in _ENDS.items()},
    (Status.RETRYING, "queued_for_limit"): Status.QUEUED_FOR_LIMIT,
    (Status.RETRYING, "requested"): Status.QUEUED,
    (Status.RETRYING, "suspended"): Status.SUSPENDED,
    (Status.RETRYING, "cancelled"): Status.CANCELLED,
}

NOTHING: dict[str, Any] = {}
"""The default of all dictionaries, because a run may have a hundred thousand steps. Never modified."""


def _nothing() -> dict[str, Any]:
    return NOTHING


@dataclass(slots=True)
class StepState:
    """A step of a run, or an item of a mapped step.

    Attributes:
        key: its key. The key of an item is that of its step with its index: `train[3]`.
        node: the key of the node.
        index: the index of the item; None for a step.
        waiting_on: how many upstream nodes have not finished.
        attempt: the number of the latest attempt.
        blocker: the first node that it needs and that finished without a result.
        cause: the first upstream node that failed, or that did not run because another one failed.
        expected: for a skipped step, whether the pipeline itself skips it (condition, rule): the run can succeed.
        stop: why this step alone is to be cancelled, if requested.
        due: whether the timer of the present attempt has expired.
        queued_attempt: the latest attempt that was queued for slots of `limits`.
        granted: the latest attempt that has its slots.
        from_run: the run whose result it reuses.
    """

    key: str
    node: str
    index: int | None = None
    waiting_on: int = 0
    status: Status = Status.WAITING
    attempt: int = 0
    failures: int = 0
    losses: int = 0
    shortages: int = 0
    blocker: str | None = None
    cause: str | None = None
    expected: bool = False
    reason: str | None = None
    stop: str | None = None
    due: bool = False
    queued_attempt: int = 0
    limits: tuple[Limit, ...] = ()
    granted: int = 0
    since: float = 0.0
    not_before: float | None = None
    start_by: float | None = None
    suspended: StepSuspended | None = None
    outputs: dict[str, Value] = field(default_factory=_nothing)
    weight: int = 0
    error: ErrorInfo | None = None
    metrics: dict[str, float] = field(default_factory=_nothing)
    non_finite: dict[str, str] = field(default_factory=_nothing)
    params: dict[str, Any] = field(default_factory=_nothing)
    artifacts: dict[str, Value] = field(default_factory=_nothing)
    tags: dict[str, str] = field(default_factory=_nothing)
    cache: CacheReport | None = None
    executor: str = ""
    from_run: str = ""
    started_at: float = 0.0
    finished_at: float = 0.0
    mapped: MappedState | None = None


@dataclass(slots=True)
class MappedState:
    """The items of a mapped step.

    Attributes:
        count: how many items there are.
        items: the items that have started, by index.
        following: the lowest index that has not started.
        taken: places of the window in use.
        done: items that have finished; `bad` of them without a result, `first_failed` the first of these.
        closing: whether no further items start.
        weight: the weight of all results together.
        source: the run from which all results are reused.
    """

    count: int
    items: dict[int, StepState] = field(default_factory=dict[int, StepState])
    following: int = 0
    taken: int = 0
    done: int = 0
    bad: int = 0
    first_failed: int | None = None
    closing: bool = False
    weight: int = 0
    source: str = ""


@dataclass(frozen=True, slots=True)
class Stop:
    """Why the main phase of the run is stopped, and the outcome that this gives the run."""

    outcome: Outcome
    reason: str


class RunState:
    """The state of a run, folded from its facts. Read its attributes; change it through `evolve` only.

    Attributes:
        frontier: keys of the steps and items whose next fact is due.
        early: ends of attempts whose requests are not folded yet.
        reused: items of mapped steps whose results are reused from another run, by step and index.
        stops: why items that have not started are to be cancelled, by key.
        open: steps that have not finished; `open_main` of them in the main phase.
        stop: why the main phase is stopped.
        ending: the outcome of the main phase once it has finished, and its error to be shown.
        now: the latest time in the facts, in Unix seconds; `reached` the latest time of a `ClockReached`.
        alarms: when the timer of an attempt expires, by key and attempt; `("", 0)` is the run's deadline.
        outbox: effects to carry out outside the log, see `effects`. The scheduler empties it.
    """

    __slots__ = (
        "_heap",
        "admitted",
        "alarms",
        "cancel",
        "early",
        "ending",
        "finished",
        "first_failure",
        "frontier",
        "now",
        "open",
        "open_main",
        "outbox",
        "plan",
        "reached",
        "requested",
        "reused",
        "run_id",
        "steps",
        "stop",
        "stops",
    )

    def __init__(self, run_id: str, plan: Plan) -> None:
        self.run_id = run_id
        self.plan = plan
        self.requested: RunRequested | None = None
        self.admitted = plan.pipeline.max_active is None
        self.cancel: CancelRequested | None = None
        self.stop: Stop | None = None
        self.finished: RunFinished | None = None
        self.first_failure: str | None = None
        self.ending: tuple[Outcome, str | None] | None = None
        self.steps = {key: StepState(key, key, None, len(upstream)) for key, upstream in plan.dependencies.items()}
        self.open = len(self.steps)
        self.open_main = self.open - len(plan.closing)
        for key in plan.closing:
            self.steps[key].waiting_on += 1
        self.frontier: dict[str, None] = dict.fromkeys(plan.roots)
        self.early: dict[tuple[str, int], AttemptFinished] = {}
        self.reused: dict[str, dict[int, StepReused]] = {}
        self.stops: dict[str, str] = {}
        self.now = self.reached = 0.0
        self.alarms: dict[tuple[str, int], float] = {}
        self._heap: list[tuple[float, str, int]] = []
        self.outbox: dict[Effect, None] = {}

    @property
    def shadow(self) -> bool:
        """Whether the run is isolated: see `RunRequested.shadow`."""
        return self.requested is not None and self.requested.shadow

    @property
    def needs_admission(self) -> bool:
        """Whether the active runs of its pipeline or of its deployment are limited."""
        if self.requested is None or self.requested.shadow:  # a shadow run must not delay or skip others
            return False
        return self.plan.pipeline.max_active is not None or self.requested.deployment_limit is not None

    @property
    def awaits_admission(self) -> bool:
        """Whether the run does nothing until it is admitted. A stopped run needs no admission to finish."""
        return not self.admitted and self.stop is None and self.open_main > 0

    def find(self, key: str) -> StepState | None:
        """Return the step or item with a key; None if it does not exist (yet)."""
        step = self.steps.get(key)
        if step is not None:
            return step
        node, index = item_of(key)
        owner = self.steps.get(node) if node else None
        return owner.mapped.items.get(index) if owner is not None and owner.mapped is not None else None

    def arm(self, key: str, attempt: int, at: float) -> None:
        """Set the timer of an attempt."""
        self.alarms[key, attempt] = at
        heapq.heappush(self._heap, (at, key, attempt))

    def alarm(self) -> float | None:
        """Return when the next timer expires, in Unix seconds; None without timers."""
        while self._heap:
            at, key, attempt = self._heap[0]
            if self.alarms.get((key, attempt)) == at:
                return at
            heapq.heappop(self._heap)
        return None

    def next_due(self, at: float) -> tuple[str, int] | None:
        """Remove and return a timer that has expired; None if there is none."""
        due = self.alarm()
        if due is None or due > at:
            return None
        _, key, attempt = heapq.heappop(self._heap)
        del self.alarms[key, attempt]
        return key, attempt

    def stopping(self, step: StepState) -> str | None:
        """Return why a step or item is to be stopped; None if it is not."""
        if step.stop is not None:
            return step.stop
        if step.index is not None and (reason := self.steps[step.node].stop) is not None:
            return reason
        if self.stop is not None and self.plan.nodes[step.node].phase is Phase.MAIN:
            return self.stop.reason
        return None


@functools.lru_cache(maxsize=4096)
def item_of(key: str) -> tuple[str, int]:
    """Split the key of an item into node and index. The node is empty if the key is not that of an item."""
    if key.endswith("]"):
        node, _, number = key[:-1].rpartition("[")
        if node and number.isdecimal() and str(int(number)) == number:
            return node, int(number)
    return "", 0
