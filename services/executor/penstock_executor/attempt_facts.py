"""What the executor says and reads of attempts."""

from __future__ import annotations

import time
from dataclasses import replace

from penstock_core.facts import AttemptFinished, AttemptRequested, ErrorInfo, Outcome
from penstock_core.pipeline import values


def bad_end(
    request: AttemptRequested, outcome: Outcome, kind: str, message: str, began: float = 0.0
) -> AttemptFinished:
    """An end that the executor itself has to report, now."""
    return AttemptFinished(
        run_id=request.run_id,
        key=request.key,
        attempt=request.attempt,
        outcome=outcome,
        error=ErrorInfo(type=kind, message=message),
        started_at=began,
        finished_at=time.time(),
    )


def queue_timeout(request: AttemptRequested) -> AttemptFinished:
    """The end of an attempt that was not started in time."""
    message = "no executor had a free slot for it within its queue_timeout"
    return bad_end(request, Outcome.TIMED_OUT, "QueueTimeout", message)


def unreadable(run_id: str, key: str, attempt: int, why: str, executor: str) -> AttemptFinished:
    """The end of an attempt whose request nobody can read: as lost, so that another one is requested."""
    error = ErrorInfo(type="CorruptEvent", message=f"its request is unreadable: {why}")
    return AttemptFinished(
        run_id=run_id, key=key, attempt=attempt, outcome=Outcome.LOST, error=error, executor=executor
    )


def too_large(fact: AttemptFinished, error: BaseException) -> AttemptFinished:
    """What is reported in place of an end that the log refuses."""
    why = ErrorInfo(type="ResultTooLarge", message=f"its end could not be recorded: {error}")
    empty = {"outputs": {}, "metrics": {}, "params": {}, "artifacts": {}, "models": ()}
    return replace(fact, outcome=Outcome.FAILED, error=why, **empty)


def stores(fact: AttemptFinished) -> bool:
    """Whether an end carries artifacts."""
    return bool(fact.models) or any(
        not isinstance(value, values.Inline) for part in (fact.outputs, fact.artifacts) for value in part.values()
    )
