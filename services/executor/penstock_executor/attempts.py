"""What the executor says and reads of attempts: pure functions."""

from __future__ import annotations

import time
from dataclasses import replace

from penstock_core import values
from penstock_core.facts import AttemptFinished, AttemptRequested, ErrorInfo, Outcome
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


def too_large(fact: AttemptFinished, error: BaseException) -> AttemptFinished:
    """What is reported in place of an end that the log refuses."""
    why = ErrorInfo(type="ResultTooLarge", message=f"its end could not be recorded: {error}")
    return replace(fact, outcome=Outcome.FAILED, outputs={}, metrics={}, params={}, artifacts={}, error=why)


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
