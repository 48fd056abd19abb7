"""Facts about attempts that the executor itself reports."""

from __future__ import annotations

import socket
import time
from dataclasses import replace

from penstock_core.facts import AttemptFinished, AttemptRequested, ErrorInfo, Outcome
from penstock_core.pipeline import values

HOST = socket.gethostname()
"""Name of this machine in facts."""


def bad_end(
    request: AttemptRequested, outcome: Outcome, kind: str, message: str, began: float = 0.0
) -> AttemptFinished:
    """The end of an attempt for a reason of the executor's, now."""
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
    """The end of an attempt that got no slot in time."""
    message = "no executor had a free slot within the queue_timeout of the step"
    return bad_end(request, Outcome.TIMED_OUT, "QueueTimeout", message)


def unreadable(run_id: str, key: str, attempt: int, why: str, executor: str) -> AttemptFinished:
    """The end of an attempt whose request is unreadable: lost, so that the scheduler requests another one."""
    error = ErrorInfo(type="CorruptEvent", message=f"the request of the attempt is unreadable: {why}")
    return AttemptFinished(
        run_id=run_id, key=key, attempt=attempt, outcome=Outcome.LOST, error=error, executor=executor
    )


def too_large(fact: AttemptFinished, error: BaseException) -> AttemptFinished:
    """The end that replaces one that the log refuses."""
    reason = ErrorInfo(type="ResultTooLarge", message=f"the end of the attempt could not be recorded: {error}")
    empty = {"outputs": {}, "metrics": {}, "non_finite": {}, "params": {}, "artifacts": {}, "models": (), "events": ()}
    return replace(fact, outcome=Outcome.FAILED, error=reason, **empty)


def stores(fact: AttemptFinished) -> bool:
    """Whether an end refers to artifacts."""
    return bool(fact.models) or any(
        not isinstance(value, values.Inline) for part in (fact.outputs, fact.artifacts) for value in part.values()
    )
