"""Describe what a step waits for other than steps and executors: slots, answers, events, times, items."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

from penstock_core import text_format
from penstock_core.facts import Limit
from penstock_core.pipeline.ir import Kind
from penstock_core.run.state import RunState, Status, StepState
from penstock_core.run.suspension import plain


def queued_for_limit(step: StepState, now: float, stop: str | None) -> str:
    """Describe an attempt that waits for slots of its limits."""
    if stop is not None:
        return stop
    if step.granted == step.attempt:
        return f"attempt {step.attempt} has its slots and will be requested next"
    names = ", ".join(
        _name(limit) + (f" (at most {limit.most})" if limit.most is not None else "") for limit in step.limits
    )
    lasted = f" for {text_format.span(now - step.since)}" if step.since else ""
    late = f"; times out in {text_format.span(step.start_by - now)}" if step.start_by is not None else ""
    first = _name(step.limits[0]) if step.limits else "NAME"
    look = f" (`penstock limits show {first}`)"
    return f"attempt {step.attempt} waits{lasted} for a slot of {names or 'its limits'}{look}{late}"


def _name(limit: Limit) -> str:
    """Return the name of a limit in its project."""
    return limit.name.rpartition("/")[2]


def suspended(step: StepState, now: float, stop: str | None) -> str:
    """Describe a suspended step."""
    fact = step.suspended
    if stop is not None or fact is None:
        return stop or "it waits"
    gives_up = f", until {_at(fact.until)} (in {text_format.span(fact.until - now)})" if fact.until is not None else ""
    match fact.kind:
        case Kind.ASK:
            question = text_format.line(str(plain(fact.inputs.get("question")) or "a question"))
            choices = plain(fact.inputs.get("choices"))
            among = f" ({', '.join(map(str, choices))})" if isinstance(choices, list) else ""
            return f"waits for an answer to {question!r}{among}{gives_up}"
        case Kind.EVENT:
            kind, key = plain(fact.inputs.get("type")), plain(fact.inputs.get("key"))
            about = f" with key {key!r}" if key not in (None, "") else ""
            return f"waits for an event {kind!r}{about}{gives_up}"
        case Kind.RUN:
            return f"waits for its child run of pipeline {fact.target!r}{gives_up}"
        case _:
            return f"sleeps{gives_up}"


def describe_items(state: RunState, step: StepState, stop: str | None) -> str:
    """Describe a mapped step with unfinished items."""
    mapped = step.mapped
    assert mapped is not None  # noqa: S101 - asked by the caller
    standing = Counter(item.status for item in mapped.items.values())
    parts = [f"{number} {status}" for status, number in standing.items() if number]
    left = mapped.count - len(mapped.items)
    if left and not mapped.closing:
        spec = state.plan.nodes[step.key].mapped
        parts.append(f"{left} to come (at most {spec.window if spec else 1} at a time)")
    elif left:
        parts.append(f"{left} that will not start")
    text = f"{mapped.done} of {mapped.count} items finished: {', '.join(parts) or 'none started'}"
    return f"{text}; {stop}" if stop is not None else text


def mapped_end(step: StepState) -> str:
    """Describe a mapped step that has finished."""
    mapped = step.mapped
    assert mapped is not None  # noqa: S101 - asked by the caller
    if step.status is Status.FAILED:
        return f"failed: {text_format.line(step.error.message if step.error else step.reason or '')}"
    if step.status is Status.CANCELLED:
        return (
            f"cancelled after {mapped.done - mapped.bad} of {mapped.count} items: {text_format.line(step.reason or '')}"
        )
    bad = f", {mapped.bad} without a result" if mapped.bad else ""
    return (
        f"{mapped.count} items succeeded{bad}"
        if not bad
        else f"{mapped.count - mapped.bad} of {mapped.count} items succeeded{bad}"
    )


def _at(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{at:g} s after 1970"  # a year outside of the calendar
