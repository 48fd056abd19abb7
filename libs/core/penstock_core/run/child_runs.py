"""Runs that a step of another run starts and waits for: how they are asked for, and what their end means for that step.

Both are functions of facts, so whoever carries them out again writes the same facts to the same places.
"""

from __future__ import annotations

from collections.abc import Mapping

from penstock_core import ids
from penstock_core.errors import InputError
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
from penstock_core.pipeline.ir import Pipeline, Port
from penstock_core.pipeline.values import Inline, Value

MAX_DEPTH = 20
"""Runs that may start each other in a row."""

_ENDINGS = {
    Outcome.CANCELLED: ("RunCancelled", "was cancelled"),
    Outcome.SKIPPED: ("RunSkipped", "was skipped"),
}


def run_id(fact: StepSuspended) -> str:
    """The id of the run that a step starts: the same attempt starts the same run."""
    return ids.run_id_from_key(fact.project, fact.target, f"\0child:{fact.run_id}:{fact.key}:{fact.attempt}")


def requested(fact: StepSuspended, parent: RunRequested, pipeline: Pipeline, version: int, now: float) -> RunRequested:
    """The request of the run that a step starts.

    Raises:
        InputError: its inputs do not fit the pipeline, or too many runs have started each other.
    """
    depth = int(parent.trigger.get("depth", "0")) + 1
    if depth > MAX_DEPTH:
        raise InputError(f"{MAX_DEPTH} runs have started each other: does pipeline {fact.target!r} start itself?")
    given = {name: values.with_run_id(value, fact.run_id) for name, value in fact.inputs.items()}
    return RunRequested(
        run_id=run_id(fact),
        project=fact.project,
        pipeline=fact.target,
        version=version,
        inputs=filled(pipeline.params, given, f"pipeline {fact.target!r} version {version}"),
        trigger={"type": "run", "run": fact.run_id, "step": fact.key, "depth": str(depth)},
        labels=parent.labels,
        priority=parent.priority,
        requested_at=now,
        deadline=None if pipeline.deadline is None else now + pipeline.deadline,
        cache=parent.cache,
        caller=Caller(run_id=fact.run_id, key=fact.key, attempt=fact.attempt),
    )


def filled(params: tuple[Port, ...], given: Mapping[str, Value], what: str) -> dict[str, Value]:
    """Values of all parameters: those that are given, else the defaults.

    Raises:
        InputError: one is unknown or missing; `what` names the pipeline.
    """
    known = {port.name for port in params}
    unknown = sorted(set(given) - known)
    if unknown:
        raise InputError(f"{what} has no parameter {unknown[0]!r} (it has: {', '.join(sorted(known)) or 'none'})")
    missing = [port.name for port in params if port.required and port.name not in given]
    if missing:
        raise InputError(f"{what} needs parameter {missing[0]!r}")
    return {port.name: given[port.name] if port.name in given else Inline(port.default) for port in params}


def ended(caller: Caller, child: RunFinished, now: float) -> AttemptFinished:
    """The end of the attempt that waits for a run, from the end of that run."""
    if child.outcome is Outcome.SUCCEEDED:
        outputs = {name: values.with_run_id(value, child.run_id) for name, value in child.outputs.items()}
        result = outputs.get("result") if len(outputs) == 1 else None
        whole = result if result is not None else values.Fields(outputs) if outputs else Inline(None)
        outcome, error = Outcome.SUCCEEDED, None
    else:
        kind, how = _ENDINGS.get(child.outcome, ("RunFailed", "failed"))
        error = ErrorInfo(type=kind, message=f"run {child.run_id} {how}: {child.error or 'no reason is known'}"[:2000])
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
    """The end of an attempt whose run cannot be started."""
    return AttemptFinished(
        run_id=fact.run_id,
        key=fact.key,
        attempt=fact.attempt,
        outcome=Outcome.FAILED,
        error=ErrorInfo(type="RunRefused", message=f"the run cannot be started: {error}"[:2000]),
        finished_at=now,
    )
