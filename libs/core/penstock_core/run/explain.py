"""Explain the status of every step of a run in one sentence.

In: the state of a run and the present time. Out: `StepReason`s in the order of the pipeline. Total over all states, and
linear in the size of the run. The sentence about a step that has not finished says what it waits for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from penstock_core import text_format
from penstock_core.facts import CancelRequested, ErrorInfo, RunRequested
from penstock_core.pipeline.ir import Phase, Pipeline
from penstock_core.run import wait_reasons
from penstock_core.run.machine import TERMINAL_STATUSES, RunState, Status, StepState

_NAMED = 4


@dataclass(frozen=True, slots=True)
class StepReason:
    """Why a step has its status.

    Attributes:
        key: the step.
        status: its status.
        sentence: the explanation.
        caused_by: the steps that cause it: the unfinished ones that it waits for, or the one that kept it from running,
            followed by the root cause of that.
        since: since when it has this status, in Unix seconds; None if unknown.
    """

    key: str
    status: Status
    sentence: str
    caused_by: tuple[str, ...] = ()
    since: float | None = None


def explain(state: RunState, now: float, asked: Mapping[str, float] | None = None) -> list[StepReason]:
    """Return the reason of every step.

    Args:
        state: the run.
        now: Unix seconds.
        asked: when the present attempt of a step was requested, in Unix seconds, as far as known.
    """
    asked = asked or {}
    roots: dict[str, str] = {}
    return [_reason(state, step, now, asked.get(step.key), roots) for step in state.steps.values()]


def explain_one(state: RunState, key: str, now: float, asked: float | None = None) -> StepReason | None:
    """Return the reason of one step or item; None if it does not exist."""
    step = state.find(key)
    return None if step is None else _reason(state, step, now, asked, {})


def _reason(state: RunState, step: StepState, now: float, asked: float | None, roots: dict[str, str]) -> StepReason:
    caused_by: tuple[str, ...] = ()
    since: float | None = None
    match step.status:
        case Status.RUNNING if step.mapped is not None:
            sentence, since = wait_reasons.describe_items(state, step, _stopping(state, step)), step.started_at or None
        case Status.QUEUED_FOR_LIMIT:
            sentence, since = wait_reasons.queued_for_limit(step, now, _stopping(state, step)), step.since or None
        case Status.SUSPENDED:
            sentence, since = wait_reasons.suspended(step, now, _stopping(state, step)), step.since or None
        case Status.WAITING:
            sentence, caused_by = _waiting(state, step)
        case Status.QUEUED:
            sentence, since = _queued(state, step, now, asked), asked
        case Status.RUNNING:
            sentence, since = _running(state, step, now), step.started_at or None
        case Status.RETRYING:
            sentence, since = _retrying(state, step, now), step.finished_at or None
        case Status.SKIPPED:
            sentence, caused_by = _skipped(state, step, roots)
        case _:
            sentence, since = _ended(step), step.finished_at or None
    return StepReason(step.key, step.status, sentence, caused_by, since)


# -------------------------------------------------------------------------------------------------------- unfinished


def _waiting(state: RunState, step: StepState) -> tuple[str, tuple[str, ...]]:
    if (stop := _stopping(state, step)) is not None:
        return stop, ()
    if step.index is not None:
        return "its first attempt will be requested next", ()
    if state.requested is not None and not state.admitted:
        return f"the run is queued: {_limits(state.plan.pipeline, state.requested)} (max_active_runs)", ()
    if step.blocker is not None and step.blocker in state.steps:
        blocker = state.steps[step.blocker]
        return f"will be skipped: step {blocker.key!r} {_ended_how(blocker)}", (blocker.key,)
    needs = state.plan.dependencies[step.key]
    open_ones = tuple(key for key in needs if state.steps[key].status not in TERMINAL_STATUSES)
    if open_ones:
        named = ", ".join(f"{key!r} ({state.steps[key].status})" for key in open_ones[:_NAMED])
        more = f" and {len(open_ones) - _NAMED} more" if len(open_ones) > _NAMED else ""
        of = f" ({len(open_ones)} of {len(needs)} not finished)" if len(needs) > 1 else ""
        return f"waits for {'step' if len(open_ones) == 1 else 'steps'} {named}{more}{of}", open_ones
    if state.requested is None:
        return "the run has not been requested yet", ()
    if state.plan.nodes[step.key].phase is not Phase.MAIN and state.open_main:
        return f"it runs when the rest of the run has finished; {state.open_main} steps have not", ()
    had = "all upstream steps have finished" if needs else "it has no upstream steps"
    return f"{had}; the scheduler requests its first attempt next (if this persists, no scheduler is running)", ()


def _limits(pipeline: Pipeline, requested: RunRequested) -> str:
    """How many active runs there may be, for a run that waits to be one of them."""
    found = [] if pipeline.max_active is None else [("its pipeline", pipeline.max_active)]
    if (own := requested.deployment_limit) is not None:
        found.append((f"deployment {own.deployment!r}", own.most))
    return " and ".join(f"{owner} may have {most} active run{'' if most == 1 else 's'}" for owner, most in found)


def _queued(state: RunState, step: StepState, now: float, asked: float | None) -> str:
    if (stop := _stopping(state, step)) is not None:
        return stop
    if step.not_before is not None and step.not_before > now:
        return (
            f"attempt {step.attempt} is delayed and starts in {text_format.span(step.not_before - now)}{_after(step)}"
        )
    ready = max(asked, step.not_before or 0.0) if asked else None
    lasted = f" for {text_format.span(now - ready)}" if ready else ""
    pool = state.plan.specs[step.node].pool
    return f"attempt {step.attempt} is queued{lasted}: no executor of pool {pool!r} has started it yet{_after(step)}"


def _running(state: RunState, step: StepState, now: float) -> str:
    lasted = f" for {text_format.span(now - step.started_at)}" if step.started_at else ""
    limit = state.plan.specs[step.node].timeout
    most = f", at most {text_format.span(limit)}" if limit is not None else ""
    text = f"attempt {step.attempt} runs on {step.executor or 'an executor'}{lasted}{most}{_after(step)}"
    stop = _stopping(state, step)
    return f"{text}; {stop}" if stop is not None else text


def _retrying(state: RunState, step: StepState, now: float) -> str:
    text = f"attempt {step.attempt} did not succeed: {_cause(step)}"
    if (stop := _stopping(state, step)) is not None:
        return f"{text}; {stop}"
    wait = step.not_before - now if step.not_before is not None else 0.0
    coming = f"in {text_format.span(wait)}" if wait > 0 else "as soon as the scheduler requests it"
    return f"{text}; the next attempt starts {coming}"


def _stopping(state: RunState, step: StepState) -> str | None:
    """Return why a step that has not finished will be stopped, if so."""
    if state.finished is not None:
        return f"the run has finished ({state.finished.outcome})"
    if state.stopping(step) is None:
        return None
    alone = state.cancel is None or step.stop is not None
    why = text_format.line(state.stopping(step) or "") if alone else _cancelled(state.cancel)
    return f"it will be cancelled: {why}"


def _cancelled(cancel: CancelRequested | None) -> str:
    if cancel is None:
        return ""
    by = f" by {text_format.line(cancel.by)}" if cancel.by else ""
    return f"the run was cancelled{by}" + (f": {text_format.line(cancel.reason)}" if cancel.reason else "")


# ---------------------------------------------------------------------------------------------------------- finished


def _ended(step: StepState) -> str:
    took = f" in {text_format.span(step.finished_at - step.started_at)}" if step.started_at and step.finished_at else ""
    where = f" on {step.executor}" if step.executor else ""
    match step.status:
        case Status.CACHED if step.reason:
            return text_format.line(step.reason)
        case Status.CACHED:
            return "cache hit: the result of an earlier attempt with the same code and inputs"
        case _ if step.mapped is not None:
            return wait_reasons.mapped_end(step) + took
        case Status.CANCELLED:
            why = text_format.line(step.reason or "") or "the run was cancelled"
            return f"attempt {step.attempt} was stopped: {why}" if step.attempt else f"never ran: {why}"
        case Status.FAILED if not step.attempt:
            return f"it could not run: {_error(step.error)}"
        case Status.FAILED:
            rule = (step.reason or "").removeprefix("failed, ")
            notes = "; ".join(note for note in (text_format.line(rule), _counts(step)) if note)
            tries = f" ({notes})" if notes else ""
            return f"attempt {step.attempt} failed{took}: {_error(step.error)}{tries}"
        case _:
            counts = _counts(step)
            return f"attempt {step.attempt} succeeded{took}{where}" + (f" (after {counts})" if counts else "")


def _skipped(state: RunState, step: StepState, roots: dict[str, str]) -> tuple[str, tuple[str, ...]]:
    reason = text_format.line(step.reason or "") or "unknown reason"
    if step.blocker is None or step.blocker not in state.steps:
        return f"never ran: {reason}", ()
    root = state.steps[_root(state, step.key, roots)]
    first = f"; root cause: step {root.key!r} {_ended_how(root)}" if root.key != step.blocker else ""
    if root.status is Status.FAILED:
        first = f"{first}: {_error(root.error)}"
    return f"never ran: {reason}{first}", tuple(dict.fromkeys((step.blocker, root.key)))


def _root(state: RunState, key: str, roots: dict[str, str]) -> str:
    """Return the step with which a chain of skips began. Caches results, so that all steps together cost one walk."""
    path: dict[str, None] = {}
    while key not in roots and key not in path:
        path[key] = None
        step = state.steps[key]
        if step.status is not Status.SKIPPED or step.blocker is None or step.blocker not in state.steps:
            break
        key = step.blocker
    root = roots.get(key, key)
    roots.update(dict.fromkeys(path, root))
    return root


def _ended_how(step: StepState) -> str:
    return "failed" if step.status is Status.FAILED else f"was {step.status}"


# ------------------------------------------------------------------------------------------------------------ phrases


def _after(step: StepState) -> str:
    """Describe what happened before the present attempt."""
    return f" (before: {_cause(step)})" if step.attempt > 1 else ""


def _cause(step: StepState) -> str:
    """Describe the last end, the rule by which another attempt follows, and the counts."""
    error = _error(step.error) if step.error is not None else ""
    rule = text_format.line(step.reason or "another attempt follows")
    return "; ".join(note for note in (error, rule, _counts(step)) if note)


def _counts(step: StepState) -> str:
    counts = [
        f"{count} {word if count == 1 else plural}"
        for count, word, plural in ((step.failures, "failure", "failures"), (step.losses, "loss", "losses"))
        if count
    ]
    return " and ".join(counts)


def _error(error: ErrorInfo | None) -> str:
    if error is None:
        return "unknown error"
    return f"{error.type}: {text_format.line(error.message)}" if error.message else error.type
