"""The spans of a finished run, computed from its facts. Pure.

No span is lost with a process, and exporting one again changes nothing: see `penstock_core.trace_context`.
"""

from __future__ import annotations

from collections.abc import Iterable

from penstock_core import trace_context
from penstock_core.facts import AttemptFinished, Outcome, RunFinished, RunRequested
from penstock_core.frozen import frozen
from penstock_core.trace_context import SpanId

_SPANS = 2000
"""Attempts in the trace of one run."""


@frozen(kw_only=True)
class Span:
    """A span with its times in Unix seconds."""

    id: SpanId
    parent: str
    name: str
    started_at: float
    finished_at: float
    error: str
    attributes: dict[str, str | int]


def of_run(run: RunRequested) -> SpanId:
    """Return the span of a run."""
    return trace_context.of_run(run.run_id, trace_context.continued(run.trigger))


def of_attempt(run: RunRequested, key: str, attempt: int) -> SpanId:
    """Return the span of an attempt."""
    return trace_context.of_attempt(run.run_id, key, attempt, trace_context.continued(run.trigger))


def spans(run: RunRequested, finished: RunFinished, ends: Iterable[AttemptFinished], at: float) -> list[Span]:
    """Return the spans of a finished run: its own, and those of its attempts.

    Args:
        run: its request.
        finished: its end.
        ends: ends of attempts.
        at: when it finished, in Unix seconds.
    """
    own = of_run(run)
    parent = trace_context.cause(run.trigger)
    about: dict[str, str | int] = {
        "penstock.project": run.project,
        "penstock.pipeline": run.pipeline,
        "penstock.version": run.version,
        "penstock.run": run.run_id,
        "penstock.trigger": run.trigger.get("type", ""),
    }
    caused = ("deployment", "event_type", "event_id")
    about |= {f"penstock.{name}": run.trigger[name] for name in caused if name in run.trigger}
    failure = "" if finished.outcome is Outcome.SUCCEEDED else finished.error or finished.outcome.value
    root = Span(
        id=own,
        parent=parent.span if parent else "",
        name=f"run {run.pipeline}",
        started_at=run.requested_at,
        finished_at=max(at, run.requested_at),
        error=failure,
        attributes=about,
    )
    return [root, *(_of_end(run, end) for end in list(ends)[:_SPANS])]


def _of_end(run: RunRequested, end: AttemptFinished) -> Span:
    return Span(
        id=of_attempt(run, end.key, end.attempt),
        parent=of_run(run).span,
        name=f"step {end.key}",
        started_at=end.started_at or end.finished_at,
        finished_at=end.finished_at,
        error=end.error.message if end.error is not None else "",
        attributes={
            "penstock.run": end.run_id,
            "penstock.step": end.key,
            "penstock.attempt": end.attempt,
            "penstock.outcome": end.outcome.value,
            "penstock.executor": end.executor,
        },
    )
