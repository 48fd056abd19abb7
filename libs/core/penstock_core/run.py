"""The run state machine: everything that affects the state of a run lives here.

In: a compiled pipeline (as a `Plan`) and the facts of a run's log, in log order. Out: the facts to append next.

- `evolve(state, fact) -> state` folds one fact. It is total (no fact raises, unknown ones change nothing), idempotent
  (the same fact twice is as once) and takes over the state it is given: the argument must not be used afterwards,
  so that folding costs the change and not the size of the run.
- `decide(state) -> facts` says what must be appended. It is deterministic and costs what changed: it looks only at the
  frontier, the steps that wait for a decision. Until its facts are folded it gives the same answer again.

Promise: whoever folds the same log decides the same facts, and every order of deliveries leads to the same end.

Replicas may decide at the same moment, one knowing of a cancel and one not yet. So a cancel claims the place that both
need, the end of the attempt, whether it is in flight or only just being requested. Whoever takes it first is right.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from penstock_core import retry, values
from penstock_core.facts import (
    GOOD,
    AttemptFinished,
    AttemptRequested,
    AttemptStarted,
    CancelRequested,
    ErrorInfo,
    Fact,
    Outcome,
    RunFinished,
    RunRequested,
    StepSkipped,
)
from penstock_core.ir import Node, Pipeline, StepSpec, dependencies
from penstock_core.values import Binding, Value


class Status(StrEnum):
    """Where a step stands in a run."""

    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    CACHED = "cached"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


FINAL = frozenset({Status.SUCCEEDED, Status.CACHED, Status.FAILED, Status.SKIPPED, Status.CANCELLED})
PASSING = frozenset({Status.SUCCEEDED, Status.CACHED})
IN_FLIGHT = frozenset({Status.QUEUED, Status.RUNNING})

# (status, what happened) -> status. What is not in this table changes nothing.
TRANSITIONS: dict[tuple[Status, str], Status] = {
    (Status.WAITING, "requested"): Status.QUEUED,
    (Status.WAITING, "skipped"): Status.SKIPPED,
    (Status.WAITING, "cancelled"): Status.CANCELLED,
    (Status.RETRYING, "requested"): Status.QUEUED,
    (Status.RETRYING, "cancelled"): Status.CANCELLED,
    (Status.QUEUED, "started"): Status.RUNNING,
    (Status.QUEUED, "succeeded"): Status.SUCCEEDED,
    (Status.QUEUED, "cached"): Status.CACHED,
    (Status.QUEUED, "again"): Status.RETRYING,
    (Status.QUEUED, "failed"): Status.FAILED,
    (Status.QUEUED, "cancelled"): Status.CANCELLED,
    (Status.RUNNING, "succeeded"): Status.SUCCEEDED,
    (Status.RUNNING, "cached"): Status.CACHED,
    (Status.RUNNING, "again"): Status.RETRYING,
    (Status.RUNNING, "failed"): Status.FAILED,
    (Status.RUNNING, "cancelled"): Status.CANCELLED,
}


class Plan:
    """What is the same for every run of a pipeline version: who waits for whom. Made once, shared, never changed."""

    __slots__ = ("dependencies", "dependents", "nodes", "pipeline", "roots", "specs")

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.nodes: dict[str, Node] = {node.key: node for node in pipeline.nodes}
        self.specs: dict[str, StepSpec] = {node.key: pipeline.steps[node.step] for node in pipeline.nodes}
        self.dependencies: dict[str, list[str]] = {node.key: dependencies(node) for node in pipeline.nodes}
        self.dependents: dict[str, list[str]] = {key: [] for key in self.nodes}
        for key, upstream in self.dependencies.items():
            for other in upstream:
                self.dependents[other].append(key)
        self.roots = [key for key, upstream in self.dependencies.items() if not upstream]


@dataclass(slots=True)
class StepState:
    """One step of one run. `waiting_on` counts unfinished dependencies; `blocker` is the first that ended badly."""

    key: str
    waiting_on: int
    status: Status = Status.WAITING
    attempt: int = 0
    failures: int = 0
    losses: int = 0
    blocker: str | None = None
    reason: str | None = None
    not_before: float | None = None
    outputs: dict[str, Value] = field(default_factory=dict[str, Value])
    weight: int = 0
    error: ErrorInfo | None = None
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    params: dict[str, Any] = field(default_factory=dict[str, Any])
    artifacts: dict[str, Value] = field(default_factory=dict[str, Value])
    executor: str = ""
    started_at: float = 0.0
    finished_at: float = 0.0


class RunState:
    """A run as its facts tell it. Read its attributes; change it through `evolve` only."""

    __slots__ = (
        "cancel",
        "early",
        "finished",
        "first_failure",
        "frontier",
        "open",
        "plan",
        "requested",
        "run_id",
        "steps",
    )

    def __init__(self, run_id: str, plan: Plan) -> None:
        self.run_id = run_id
        self.plan = plan
        self.requested: RunRequested | None = None
        self.cancel: CancelRequested | None = None
        self.finished: RunFinished | None = None
        self.first_failure: str | None = None
        self.steps = {key: StepState(key, len(upstream)) for key, upstream in plan.dependencies.items()}
        self.open = len(self.steps)
        self.frontier: dict[str, None] = dict.fromkeys(plan.roots)
        self.early: dict[tuple[str, int], AttemptFinished] = {}


def fold(run_id: str, plan: Plan, facts: Iterable[Fact]) -> RunState:
    """The state of a run after `facts`."""
    state = RunState(run_id, plan)
    for fact in facts:
        state = evolve(state, fact)
    return state


# ---------------------------------------------------------------------------------------------------------- evolve


def evolve(state: RunState, fact: Fact) -> RunState:
    """Fold one fact; takes over `state` and returns it."""
    if fact.run_id != state.run_id:
        return state
    match fact:
        case AttemptFinished():
            _evolve_finished(state, fact)
        case AttemptRequested():
            _evolve_requested(state, fact)
        case AttemptStarted():
            _evolve_started(state, fact)
        case StepSkipped():
            _evolve_skipped(state, fact)
        case RunRequested():
            state.requested = state.requested or fact
        case CancelRequested():
            if state.cancel is None:
                state.cancel = fact
                state.frontier.update((key, None) for key, step in state.steps.items() if step.status not in FINAL)
        case RunFinished():
            state.finished = state.finished or fact
    return state


def _evolve_requested(state: RunState, fact: AttemptRequested) -> None:
    step = state.steps.get(fact.key)
    if step is None or fact.attempt != step.attempt + 1 or not _move(step, "requested"):
        return
    step.attempt = fact.attempt
    step.not_before = fact.not_before
    # What the last attempt left; its error stays until the next end, for people.
    step.executor, step.started_at, step.finished_at = "", 0.0, 0.0
    if state.cancel is None:
        state.frontier.pop(fact.key, None)
    end = state.early.pop((fact.key, fact.attempt), None)
    if end is not None:
        _evolve_finished(state, end)


def _evolve_started(state: RunState, fact: AttemptStarted) -> None:
    step = state.steps.get(fact.key)
    if step is not None and fact.attempt == step.attempt and _move(step, "started"):
        step.started_at = fact.started_at
        step.executor = fact.executor


def _evolve_finished(state: RunState, fact: AttemptFinished) -> None:
    step = state.steps.get(fact.key)
    if step is None:
        return
    if fact.attempt > step.attempt and step.status not in FINAL:
        if fact.outcome is Outcome.CANCELLED and step.status not in IN_FLIGHT:
            # The next attempt was ended before anyone asked for it: nothing can come of the step any more.
            step.error, step.reason = fact.error, _why(fact, "cancelled")
            _end(state, step, "cancelled")
        else:
            # An end whose request is not folded yet: kept, and applied with the request.
            state.early.setdefault((fact.key, fact.attempt), fact)
        return
    if fact.attempt != step.attempt or step.status not in IN_FLIGHT:
        return
    step.executor = fact.executor or step.executor
    step.started_at, step.finished_at = fact.started_at or step.started_at, fact.finished_at
    step.metrics, step.params, step.artifacts, step.error = fact.metrics, fact.params, fact.artifacts, fact.error
    if fact.outcome in GOOD:
        step.outputs = fact.outputs
        step.weight = sum(values.weight(value) for value in fact.outputs.values())
        _end(state, step, "cached" if fact.outcome is Outcome.CACHED else "succeeded")
        return
    if fact.outcome is Outcome.LOST:
        step.losses += 1
    elif fact.outcome is not Outcome.CANCELLED:
        step.failures += 1
    decision = retry.decide(state.plan.specs[fact.key].retry, _history(state, step), fact.outcome, fact.error)
    step.reason = _why(fact, decision.reason) if fact.outcome is Outcome.CANCELLED else decision.reason
    if decision.again:
        _move(step, "again")
        step.not_before = fact.finished_at + decision.delay if decision.delay and fact.finished_at else None
        state.frontier[fact.key] = None
    else:
        _end(state, step, "cancelled" if fact.outcome is Outcome.CANCELLED else "failed")


def _evolve_skipped(state: RunState, fact: StepSkipped) -> None:
    step = state.steps.get(fact.key)
    if step is not None and (step.status, "skipped") in TRANSITIONS:
        step.reason = fact.reason
        step.blocker = step.blocker or fact.because
        _end(state, step, "skipped")


def _end(state: RunState, step: StepState, event: str) -> None:
    """Move a step to a final status and tell its dependents."""
    if not _move(step, event):
        return
    state.open -= 1
    state.frontier.pop(step.key, None)
    passing = step.status in PASSING
    if step.status is Status.FAILED and state.first_failure is None:
        state.first_failure = step.key
    for key in state.plan.dependents[step.key]:
        dependent = state.steps[key]
        dependent.waiting_on -= 1
        if not passing and dependent.blocker is None:
            dependent.blocker = step.key
        if dependent.status is Status.WAITING and (dependent.waiting_on == 0 or dependent.blocker):
            state.frontier[key] = None


def _why(fact: AttemptFinished, otherwise: str) -> str:
    return fact.error.message if fact.error and fact.error.message else otherwise


def _move(step: StepState, event: str) -> bool:
    status = TRANSITIONS.get((step.status, event))
    if status is None:
        return False
    step.status = status
    return True


def _history(state: RunState, step: StepState) -> retry.History:
    return retry.History(
        run_id=state.run_id, key=step.key, attempt=step.attempt, failures=step.failures, losses=step.losses
    )


# ---------------------------------------------------------------------------------------------------------- decide


def decide(state: RunState) -> list[Fact]:
    """The facts that must be appended now, in order; empty when the run waits for others or is over."""
    if state.requested is None or state.finished is not None:
        return []
    if state.open == 0:
        return [_run_finished(state)]
    return [_next(state, state.steps[key], state.requested) for key in state.frontier]


def _next(state: RunState, step: StepState, run: RunRequested) -> Fact:
    if state.cancel is not None:
        # The end of an attempt is append-once. So this fences whatever the attempt's process still reports, and also
        # an attempt that a replica which does not know of the cancel yet is asking for at this moment.
        attempt = step.attempt if step.status in IN_FLIGHT else step.attempt + 1
        while (step.key, attempt) in state.early and state.early[step.key, attempt].outcome is Outcome.LOST:
            attempt += 1  # this end was written, but nobody can read it
        error = ErrorInfo(type="Cancelled", message=_cancel_reason(state.cancel))
        return AttemptFinished(
            run_id=state.run_id, key=step.key, attempt=attempt, outcome=Outcome.CANCELLED, error=error
        )
    if step.status is Status.WAITING and step.blocker is not None:
        blocker = state.steps[step.blocker]
        return StepSkipped(
            run_id=state.run_id,
            key=step.key,
            reason=f"step {blocker.key!r} {'failed' if blocker.status is Status.FAILED else f'was {blocker.status}'}",
            because=blocker.key,
        )
    return _attempt(state, step, run)


def _attempt(state: RunState, step: StepState, run: RunRequested) -> AttemptRequested:
    node = state.plan.nodes[step.key]
    spec = state.plan.specs[step.key]
    by_reference = _weight(state, node.inputs) > values.REQUEST_LIMIT
    return AttemptRequested(
        run_id=state.run_id,
        key=step.key,
        attempt=step.attempt + 1,
        pool=spec.pool,
        project=run.project,
        pipeline=run.pipeline,
        version=run.version,
        entrypoint=spec.entrypoint,
        inputs={name: resolve(state, binding, by_reference=by_reference) for name, binding in node.inputs.items()},
        outputs=spec.outputs,
        timeout=spec.timeout,
        resources=spec.resources,
        env=spec.env,
        secrets=spec.secrets,
        priority=run.priority + spec.priority,
        not_before=step.not_before,
    )


def _run_finished(state: RunState) -> RunFinished:
    statuses = {step.status for step in state.steps.values()}
    if state.cancel is not None and (Status.CANCELLED in statuses or Status.SKIPPED in statuses):
        return RunFinished(run_id=state.run_id, outcome=Outcome.CANCELLED, error=_cancel_reason(state.cancel))
    if state.first_failure is not None:
        error = state.steps[state.first_failure].error
        why = f": {error.type}: {error.message}" if error else ""
        return RunFinished(
            run_id=state.run_id, outcome=Outcome.FAILED, error=f"step {state.first_failure!r} failed{why}"[:2000]
        )
    for status, outcome in ((Status.CANCELLED, Outcome.CANCELLED), (Status.SKIPPED, Outcome.FAILED)):
        # Nobody cancelled the run and no step failed, and yet there is a step without a result.
        if status in statuses:
            bad = next(step for step in state.steps.values() if step.status is status)
            why = f"step {bad.key!r} was {status}: {bad.reason}"
            return RunFinished(run_id=state.run_id, outcome=outcome, error=why)
    outputs = state.plan.pipeline.outputs
    by_reference = _weight(state, outputs) > values.REQUEST_LIMIT
    return RunFinished(
        run_id=state.run_id,
        outcome=Outcome.SUCCEEDED,
        outputs={name: resolve(state, binding, by_reference=by_reference) for name, binding in outputs.items()},
    )


def _weight(state: RunState, bindings: dict[str, Binding]) -> int:
    """An upper estimate of the results that `bindings` read, each as often as it is read."""
    return sum(state.steps[source.node].weight for item in bindings.values() for source in values.sources(item))


def resolve(state: RunState, binding: Binding, *, by_reference: bool = False) -> Value:
    """The value a binding stands for. Inline results become references to the log when `by_reference` is set."""
    match binding:
        case values.Param(name):
            inputs = state.requested.inputs if state.requested else {}
            return inputs.get(name, values.Inline(None))
        case values.Output(node, output):
            step = state.steps[node]
            value = step.outputs.get(output, values.Inline(None))
            if by_reference and not isinstance(value, values.Stored):
                return values.Earlier(values.ResultRef(key=node, attempt=step.attempt, output=output))
            return value
        case values.BoundItems(items):
            return values.Items(tuple(resolve(state, item, by_reference=by_reference) for item in items))
        case values.BoundFields(fields):
            return values.Fields({k: resolve(state, v, by_reference=by_reference) for k, v in fields.items()})
        case values.Inline():
            return binding


def _cancel_reason(cancel: CancelRequested) -> str:
    by = f" by {cancel.by}" if cancel.by else ""
    why = f": {cancel.reason}" if cancel.reason else ""
    return f"cancelled{by}{why}"
