"""Steps that wait without a process for an answer, an event, a time or a child run: how waits start and time out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from penstock_core.facts import AttemptFinished, ErrorInfo, Fact, Outcome, RunRequested, StepSuspended
from penstock_core.pipeline import tagged, values
from penstock_core.pipeline.ir import Kind, StepSpec
from penstock_core.pipeline.values import Value
from penstock_core.run.state import RunState, StepState
from penstock_core.run.value_resolution import UnresolvableBindingError

_TIMED_OUT = {
    Kind.ASK: "nobody answered in time",
    Kind.EVENT: "no event arrived in time",
    Kind.RUN: "the child run did not finish in time",
}
_FARTHEST = 1e11


def suspend(
    state: RunState, key: str, attempt: int, spec: StepSpec, inputs: dict[str, Value], run: RunRequested
) -> StepSuspended:
    """Return the fact that starts a wait.

    Raises:
        UnresolvableBindingError: an input has the wrong type.
    """
    return StepSuspended(
        run_id=state.run_id,
        key=key,
        attempt=attempt,
        kind=spec.kind,
        project=run.project,
        inputs=_checked(spec, inputs),
        until=_until(state, spec, inputs),
        target=spec.target,
        version=spec.target_version,
    )


def end_of_wait(state: RunState, step: StepState) -> Fact:
    """Return the end of a wait that timed out: success for a sleep or a question with a default, else a timeout."""
    fact = step.suspended
    assert fact is not None  # noqa: S101 - asked by the caller
    made: dict[str, Any] = {"outcome": Outcome.SUCCEEDED}
    default = plain(fact.inputs.get("default"))
    if fact.kind is Kind.ASK and default is not None:
        made |= {"outputs": {"result": values.Inline(default)}, "params": {"answered_by": "time-out"}}
    elif fact.kind is not Kind.SLEEP:
        message = _TIMED_OUT.get(fact.kind, "it did not finish in time")
        made = {"outcome": Outcome.TIMED_OUT, "error": ErrorInfo(type="Timeout", message=message)}
    return AttemptFinished(
        run_id=state.run_id,
        key=step.key,
        attempt=step.attempt,
        started_at=step.since,
        finished_at=state.now if fact.until is None else max(fact.until, step.since),
        **made,
    )


def plain(value: Value | None) -> Any:
    """Return the plain data of an inline value; None for other values."""
    return tagged.plain(value.value) if isinstance(value, values.Inline) else None


def choices(fact: StepSuspended) -> list[Any]:
    """Return the answers that a question accepts."""
    try:
        found = _data(fact.inputs, "choices")
    except UnresolvableBindingError:
        return []
    return list(found) if isinstance(found, list) else []


def _checked(spec: StepSpec, inputs: dict[str, Value]) -> dict[str, Value]:
    if spec.kind is Kind.ASK:
        choices = _data(inputs, "choices")
        if choices is not None and (not isinstance(choices, list) or not choices):
            raise UnresolvableBindingError("the choices of a question must be a non-empty list")
    elif spec.kind is Kind.EVENT:
        for name in ("type", "key"):
            data = _data(inputs, name)
            if data is not None and not isinstance(data, str | int):
                raise UnresolvableBindingError(f"the {name} of an event must be text, not a {tagged.kind(data)}")
    return inputs


def _until(state: RunState, spec: StepSpec, inputs: dict[str, Value]) -> float | None:
    if spec.kind is not Kind.SLEEP:
        return None if spec.timeout is None else state.now + spec.timeout
    if "until" in inputs:
        at = _time(_data(inputs, "until"))
    else:
        seconds = _data(inputs, "seconds")
        if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 <= seconds < _FARTHEST:
            raise UnresolvableBindingError(f"a sleep needs a number of seconds, not {tagged.text(seconds)}")
        at = state.now + seconds
    if not 0 <= at < _FARTHEST:
        raise UnresolvableBindingError(f"the time {at} to sleep until is out of range")
    return at


def _time(data: Any) -> float:
    """Convert a number, or a date and time as text (UTC without a time zone), to Unix seconds."""
    try:
        if isinstance(data, int | float) and not isinstance(data, bool):
            return float(data)
        at = datetime.fromisoformat(str(data))
        return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise UnresolvableBindingError(
            f"{tagged.text(data)} is not a time: pass Unix seconds or a date and time"
        ) from error


def _data(inputs: dict[str, Value], name: str) -> Any:
    value = inputs.get(name, values.Inline(None))
    match value:
        case values.Inline(data):
            return tagged.plain(data)
        case values.Items(items):
            return [plain(item) for item in items]
        case _:
            raise UnresolvableBindingError(
                f"{name!r} is stored as an artifact, which only the user's code can load: pass a small value"
            )
