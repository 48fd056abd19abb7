"""What the executor says and reads of attempts."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from penstock_contracts import subjects
from penstock_core import values
from penstock_core.errors import PenstockError
from penstock_core.facts import AttemptFinished, AttemptRequested, ErrorInfo, Outcome
from penstock_core.ports import Recorded
from penstock_core.values import Value


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
    return replace(fact, outcome=Outcome.FAILED, outputs={}, metrics={}, params={}, artifacts={}, error=why)


async def with_inputs(
    request: AttemptRequested, facts: Callable[[list[str]], Awaitable[dict[str, Recorded]]]
) -> AttemptRequested:
    """The request with results that it names by reference read from the log.

    Raises:
        PenstockError: one is not in the log.
    """
    wanted = {ref for value in request.inputs.values() for ref in references(value)}
    if not wanted:
        return request
    places = {ref: subjects.finished(request.run_id, ref.key, ref.attempt) for ref in wanted}
    found = await facts(list(dict.fromkeys(places.values())))
    results: dict[values.ResultRef, Value] = {}
    for ref, place in places.items():
        recorded = found.get(place)
        if recorded is None or not isinstance(recorded.fact, AttemptFinished):
            raise PenstockError(f"the result {ref.output!r} of step {ref.key!r} is not in the log any more")
        results[ref] = recorded.fact.outputs.get(ref.output, values.Inline(None))
    return replace(request, inputs={k: filled(v, results) for k, v in request.inputs.items()})


def references(value: Value) -> list[values.ResultRef]:
    """The results in the log that a value names."""
    match value:
        case values.Earlier(ref):
            return [ref]
        case values.Items(items):
            return [ref for item in items for ref in references(item)]
        case values.Fields(fields):
            return [ref for item in fields.values() for ref in references(item)]
        case _:
            return []


def filled(value: Value, results: dict[values.ResultRef, Value]) -> Value:
    """A value with the results that it names in their places."""
    match value:
        case values.Earlier(ref):
            return results[ref]
        case values.Items(items):
            return values.Items(tuple(filled(item, results) for item in items))
        case values.Fields(fields):
            return values.Fields({k: filled(item, results) for k, item in fields.items()})
        case _:
            return value


def stores(fact: AttemptFinished) -> bool:
    """Whether an end carries artifacts."""
    return any(
        not isinstance(value, values.Inline) for part in (fact.outputs, fact.artifacts) for value in part.values()
    )
