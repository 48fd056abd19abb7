"""Child runs: the request of the run that a step starts, and the end of the waiting attempt.

Both are functions of facts, so repeating them writes the same facts to the same subjects.
"""

from __future__ import annotations

from collections.abc import Mapping

from penstock_core import access, ids, requests, run_events, trace_context, tracing
from penstock_core.errors import InputError, PenstockError
from penstock_core.facts import (
    AttemptFinished,
    Caller,
    ErrorInfo,
    Outcome,
    RunFinished,
    RunRequested,
    StepSuspended,
)
from penstock_core.pipeline import values
from penstock_core.pipeline.values import Inline
from penstock_core.registry.facts import ModelRegistered
from penstock_core.requests import Inputs, Options, Target

Models = Mapping[str, ModelRegistered | PenstockError]

MAX_DEPTH = 20
"""How deep runs may start each other."""

_ENDINGS = {
    Outcome.CANCELLED: ("RunCancelled", "was cancelled"),
    Outcome.SKIPPED: ("RunSkipped", "was skipped"),
}


def run_id(fact: StepSuspended) -> str:
    """Return the id of a step's child run. The same attempt always has the same child run."""
    return ids.run_id_from_key(fact.project, fact.target, f"\0child:{fact.run_id}:{fact.key}:{fact.attempt}")


def build_request(
    fact: StepSuspended, parent: RunRequested, target: Target, models: Models, now: float
) -> RunRequested:
    """Build the request of the child run that a step starts; `models` is `requests.Inputs.models`.

    Raises:
        InvalidInputsError: its inputs do not fit the pipeline.
        InputError: too many runs have started each other.
    """
    depth = int(parent.trigger.get("depth", "0")) + 1
    if depth > MAX_DEPTH:
        raise InputError(f"{MAX_DEPTH} nested child runs: does pipeline {fact.target!r} start itself?")
    options = Options(
        trigger={
            "type": "run",
            "run": fact.run_id,
            "step": fact.key,
            "depth": str(depth),
            **run_events.inherited_hops(parent.trigger),
            trace_context.TRACEPARENT: tracing.of_attempt(parent, fact.key, fact.attempt).traceparent(),
        },
        requested_by=access.run_step(fact.run_id, fact.key),
        labels=parent.labels,
        priority=parent.priority,
        cache=parent.cache,
        caller=Caller(run_id=fact.run_id, key=fact.key, attempt=fact.attempt),
        shadow=parent.shadow,
    )
    given = {name: values.with_run_id(value, fact.run_id) for name, value in fact.inputs.items()}
    return requests.build(run_id(fact), target, Inputs(given=given, models=models), options, now)


def ended(caller: Caller, child: RunFinished, now: float) -> AttemptFinished:
    """Return the end of the attempt that waits for a child run, from the end of that run."""
    if child.outcome is Outcome.SUCCEEDED:
        outputs = {name: values.with_run_id(value, child.run_id) for name, value in child.outputs.items()}
        result = outputs.get("result") if len(outputs) == 1 else None
        whole = result if result is not None else values.Fields(outputs) if outputs else Inline(None)
        outcome, error = Outcome.SUCCEEDED, None
    else:
        kind, how = _ENDINGS.get(child.outcome, ("RunFailed", "failed"))
        error = ErrorInfo(type=kind, message=f"run {child.run_id} {how}: {child.error or 'unknown reason'}"[:2000])
        outcome, whole = Outcome.FAILED, None
    return AttemptFinished(
        run_id=caller.run_id,
        key=caller.key,
        attempt=caller.attempt,
        outcome=outcome,
        outputs={} if whole is None else {"result": whole},
        error=error,
        params={"run": child.run_id},
        finished_at=now,
    )


def refused(fact: StepSuspended, error: Exception, now: float) -> AttemptFinished:
    """Return the end of an attempt whose child run cannot be started."""
    return AttemptFinished(
        run_id=fact.run_id,
        key=fact.key,
        attempt=fact.attempt,
        outcome=Outcome.FAILED,
        error=ErrorInfo(type="RunRefused", message=f"the run cannot be started: {error}"[:2000]),
        finished_at=now,
    )
