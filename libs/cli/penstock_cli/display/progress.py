"""The progress of a run: the core's state machine applied to its events, with the times of all attempts.

Events are applied in log order; duplicates are ignored. Displays read `Progress`, and print the `Change` of each event.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.client import views
from penstock.client.views import Event, LogLine
from penstock_cli.display import waits
from penstock_cli.display.formats import duration, metrics, plural
from penstock_core import facts
from penstock_core.facts import ErrorInfo, Fact, Outcome
from penstock_core.pipeline.ir import Kind, Pipeline
from penstock_core.run.machine import TERMINAL_STATUSES, Plan, RunState, Status, StepState, evolve


@dataclass(slots=True)
class Attempt:
    """The times of an attempt in Unix seconds, 0 for those that have not come yet."""

    number: int
    requested_at: float = 0.0
    started_at: float = 0.0
    finished_at: float = 0.0
    outcome: str = ""


@dataclass(slots=True)
class StepHistory:
    """What the state machine does not record.

    Attributes:
        attempts: the attempts of the step by number.
        live: its metrics while it runs.
        progress: what its present attempt reported last.
        last_failed: of a mapped step, the item that failed last.
        reported: of a mapped step, whether its end was reported as a change.
    """

    attempts: dict[int, Attempt] = field(default_factory=dict[int, Attempt])
    live: dict[str, Any] = field(default_factory=dict[str, Any])
    progress: views.Progress | None = None
    last_failed: StepState | None = None
    reported: bool = False

    def attempt(self, number: int) -> Attempt:
        """Return the attempt of this number."""
        return self.attempts.setdefault(number, Attempt(number))

    @property
    def last(self) -> Attempt | None:
        """The latest attempt, or None."""
        return self.attempts[max(self.attempts)] if self.attempts else None


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a step, or of the run if `key` is None.

    Attributes:
        needs_action: it requires an action of the user.
        counts: it only says how many items of a mapped step have finished; a later one replaces it.
    """

    at: float
    key: str | None
    state: str
    text: str = ""
    needs_action: bool = False
    counts: bool = False


class Progress:
    """The progress of a run, from its events."""

    def __init__(self, run_id: str, pipeline: Pipeline, version: int) -> None:
        self.run_id = run_id
        self.pipeline = pipeline
        self.version = version
        self.state = RunState(run_id, Plan(pipeline))
        self.step_histories: dict[str, StepHistory] = {key: StepHistory() for key in self.state.steps}
        self.counts: Counter[Status] = Counter({Status.WAITING: len(self.step_histories)})
        self.created_at = 0.0
        self.finished_at = 0.0
        self.last_seq = 0

    @property
    def outcome(self) -> str:
        """The state of the run."""
        if self.state.finished is not None:
            return self.state.finished.outcome.value
        if self.state.cancel is not None:
            return "cancelling"
        return "running" if self.last_seq else "queued"

    @property
    def steps(self) -> Mapping[str, StepState]:
        """The steps by key, in the order of the pipeline."""
        return self.state.steps

    def apply(self, event: Event) -> list[Change]:
        """Apply an event; return the changes to print."""
        fact = fact_of(event) if event.seq > self.last_seq else None
        if fact is None:
            return []
        self.last_seq = event.seq
        key: str | None = getattr(fact, "key", None)
        step = self.state.steps.get(key) if key is not None else None
        before = step.status if step is not None else None
        evolve(self.state, fact)
        record_time(self.step_histories, event, fact)
        if isinstance(fact, facts.RunRequested):
            self.created_at = event.at or fact.requested_at
        elif isinstance(fact, facts.RunFinished):
            self.finished_at = event.at
        if isinstance(fact, facts.StepSuspended) and (step is None or step.status is not before):
            self._count(before, step)
            question = fact.kind is Kind.ASK
            return [Change(event.at, key, Status.SUSPENDED.value, waits.describe(event.data), question)]
        if step is None and key is not None:
            return list(self._item(event.at, fact, key))
        if step is not None and before is not None:
            if step.status is before:
                return []
            self._count(before, step)
            self.step_histories[step.key].reported = step.status in TERMINAL_STATUSES
            return [Change(event.at, key, step.status.value, describe(step, fact, event.at))]
        if isinstance(fact, facts.RunFinished):
            return [Change(event.at, None, fact.outcome.value, fact.error or "")]
        if isinstance(fact, facts.CancelRequested):
            return [Change(event.at, None, "cancelling", fact.reason)]
        return []

    def _count(self, before: Status | None, step: StepState | None) -> None:
        if before is not None and step is not None:
            self.counts[before] -= 1
            self.counts[step.status] += 1

    def _item(self, at: float, fact: Fact, key: str) -> Iterator[Change]:
        """Yield the change of an item that failed, and that of its mapped step."""
        item = self.state.find(key)
        if item is None or item.index is None:
            return
        owner, history = self.state.steps[item.node], self.step_histories[item.node]
        if item.status is Status.FAILED and item.error is not None:
            history.last_failed = item
        if isinstance(fact, facts.AttemptFinished) and fact.outcome not in facts.SUCCESSFUL:
            yield Change(at, key, item.status.value, describe(item, fact, at))
        if owner.status in TERMINAL_STATUSES and not history.reported:
            history.reported = True
            self.counts[Status.RUNNING] -= 1
            self.counts[owner.status] += 1
            yield Change(at, owner.key, owner.status.value, items(owner))
        elif item.status in TERMINAL_STATUSES and owner.status not in TERMINAL_STATUSES:
            yield Change(at, owner.key, owner.status.value, items(owner), counts=True)

    def record(self, line: LogLine) -> None:
        """Record a metric or the progress of a running step."""
        history = self.step_histories.get(line.step)
        if history is not None and line.metric is not None:
            history.live[line.metric] = line.value
        if history is not None and line.progress is not None:
            history.progress = line.progress

    def elapsed(self, key: str, now: float) -> float | None:
        """Return the seconds that the last attempt of a step has run; None if it has not started.

        The time of a mapped step is that of all its items together.
        """
        attempts = self.attempts(key)
        last = attempts[-1] if attempts else None
        if last is None or not last.started_at:
            return None
        if last.finished_at:
            return max(0.0, last.finished_at - last.started_at)
        return max(0.0, now - last.started_at) if self.state.finished is None else None

    def attempts(self, key: str) -> list[Attempt]:
        """Return the attempts of a step or an item; a mapped step counts as one attempt."""
        step = self.state.steps.get(key)
        if step is not None and step.mapped is not None and step.started_at:
            return [Attempt(1, 0.0, step.started_at, step.finished_at, step.status.value)]
        return list(self.step_histories[key].attempts.values())

    @property
    def finished_count(self) -> int:
        """Number of finished steps."""
        return sum(self.counts[status] for status in TERMINAL_STATUSES)


def items(step: StepState) -> str:
    """Return the progress of a mapped step: `12/100 items, 1 without a result`."""
    mapped = step.mapped
    if mapped is None:
        return ""
    done = f"{mapped.done}/" if step.status not in TERMINAL_STATUSES else ""
    bad = f", {mapped.bad} without a result" if mapped.bad else ""
    return f"{done}{plural(mapped.count, 'item')}{bad}"


def describe(step: StepState, fact: Fact, at: float) -> str:
    """Describe a change of a step."""
    match fact:
        case facts.AttemptRequested() if fact.attempt > 1:
            wait = (fact.not_before or at) - at
            return f"attempt {fact.attempt}" + (f" in {duration(wait)}" if wait > 0.05 else "")
        case facts.AttemptStarted() if fact.attempt > 1:
            return f"attempt {fact.attempt}"
        case facts.AttemptFinished() if fact.outcome in facts.SUCCESSFUL:
            took = duration(fact.finished_at - fact.started_at) if fact.started_at else ""
            return "  ".join(part for part in (took, metrics(fact.metrics | fact.non_finite)) if part)
        case facts.AttemptFinished(outcome=Outcome.CANCELLED):
            return fact.error.message if fact.error else ""
        case facts.AttemptFinished():
            why = f"{fact.error.type}: {fact.error.message}" if fact.error else fact.outcome.value
            retry = f" ({step.reason})" if step.status is Status.RETRYING and step.reason else ""
            return f"attempt {fact.attempt}: {why}{retry}"
        case facts.StepSkipped():
            return fact.reason
        case facts.StepExpanded():
            return fact.error.message if fact.error is not None else plural(fact.count, "item")
        case facts.AttemptQueued():
            return "waits for a slot of its limits"
        case facts.StepReused():
            return step.reason or ""
        case _:
            return ""


def record_time(step_histories: dict[str, StepHistory], event: Event, fact: Fact) -> None:
    """Record when an attempt was requested, started or finished."""
    if not isinstance(fact, facts.AttemptRequested | facts.AttemptStarted | facts.AttemptFinished):
        return
    history = step_histories.setdefault(fact.key, StepHistory())
    attempt = history.attempt(fact.attempt)
    match fact:
        case facts.AttemptRequested():
            attempt.requested_at = max(event.at, fact.not_before or 0.0)
            history.live.clear()
            history.progress = None
        case facts.AttemptStarted():
            attempt.started_at = fact.started_at or event.at
        case facts.AttemptFinished():
            attempt.started_at = fact.started_at or attempt.started_at
            attempt.finished_at = fact.finished_at or event.at
            attempt.outcome = fact.outcome.value


def timeline(events: Iterable[Event]) -> dict[str, StepHistory]:
    """Return the times of the attempts of each step."""
    step_histories: dict[str, StepHistory] = {}
    for event in events:
        fact = fact_of(event)
        if fact is not None:
            record_time(step_histories, event, fact)
    return step_histories


_KINDS: dict[str, type[Fact]] = {
    "run.requested": facts.RunRequested,
    "run.admitted": facts.RunAdmitted,
    "run.clock": facts.ClockReached,
    "run.cancel": facts.CancelRequested,
    "run.finished": facts.RunFinished,
    "step.expanded": facts.StepExpanded,
    "step.reused": facts.StepReused,
    "step.skipped": facts.StepSkipped,
    "step.cancel": facts.StepCancelRequested,
    "attempt.queued": facts.AttemptQueued,
    "attempt.granted": facts.SlotGranted,
    "attempt.suspended": facts.StepSuspended,
    "attempt.requested": facts.AttemptRequested,
    "attempt.started": facts.AttemptStarted,
    "attempt.finished": facts.AttemptFinished,
}
# Values are not decoded: displays do not show them, and outputs can be large.
_VALUES = {"inputs", "outputs", "artifacts", "resources", "cache", "caller", "limits"}
_FIELDS = {kind: {f.name for f in dataclasses.fields(fact)} - _VALUES for kind, fact in _KINDS.items()}


def fact_of(event: Event) -> Fact | None:
    """Return the fact of an event, without its values; None for kinds unknown to this version."""
    kind = _KINDS.get(event.kind)
    if kind is None:
        return None
    data = {name: value for name, value in event.data.items() if name in _FIELDS[event.kind]}
    if "outcome" in data:
        data["outcome"] = Outcome(data["outcome"])
    if isinstance(data.get("error"), dict):
        error = views.build(ErrorInfo, data["error"])
        data["error"] = dataclasses.replace(error, bases=tuple(error.bases))
    return kind(**data)
