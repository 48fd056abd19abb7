"""Move steps and items from status to status, and update the steps that depend on them. Used by `evolve` only."""

from __future__ import annotations

from penstock_core.facts import ErrorInfo
from penstock_core.pipeline import values
from penstock_core.pipeline.ir import Phase, Rule
from penstock_core.run import mapped_steps
from penstock_core.run.run_outcome import run_outcome_and_reason
from penstock_core.run.state import (
    NOTHING,
    SUCCESSFUL_STATUSES,
    TERMINAL_STATUSES,
    TRANSITIONS,
    MappedState,
    RunState,
    Status,
    StepState,
)


def move(step: StepState, event: str) -> bool:
    """Apply an event by the transition table. Returns False if the table has no such transition."""
    status = TRANSITIONS.get((step.status, event))
    if status is None:
        return False
    step.status = status
    return True


def end(state: RunState, step: StepState, event: str) -> None:
    """Move a step or an item to a terminal status, and update what depends on it."""
    if not move(step, event):
        return
    state.frontier.pop(step.key, None)
    if step.index is not None:
        _end_item(state, state.steps[step.node], step)
    else:
        _end_step(state, step)


def _end_step(state: RunState, step: StepState) -> None:
    state.open -= 1
    if step.status is Status.FAILED and state.first_failure is None:
        state.first_failure = step.key
    passing = step.status in SUCCESSFUL_STATUSES
    failed = not passing and not (step.status is Status.SKIPPED and step.expected)
    for key in state.plan.dependents[step.key]:
        dependent = state.steps[key]
        dependent.waiting_on -= 1
        if failed and dependent.cause is None:
            dependent.cause = step.key
        strict = state.plan.nodes[key].rule is Rule.ALL_SUCCEEDED and step.key in state.plan.needed[key]
        if not passing and strict and dependent.blocker is None:
            dependent.blocker = step.key
        if dependent.status is Status.WAITING and (dependent.waiting_on == 0 or dependent.blocker):
            state.frontier[key] = None
    if state.plan.nodes[step.key].phase is Phase.MAIN:
        state.open_main -= 1
        if state.open_main == 0:
            _main_phase_finished(state)


def _main_phase_finished(state: RunState) -> None:
    """The main phase has finished: the closing steps are next."""
    state.ending = run_outcome_and_reason(state)
    for key in state.plan.closing:
        step = state.steps[key]
        step.waiting_on -= 1
        if step.status is Status.WAITING and (step.waiting_on == 0 or step.blocker):
            state.frontier[key] = None


# --------------------------------------------------------------------------------------------------------------- items


def _end_item(state: RunState, owner: StepState, item: StepState) -> None:
    mapped = owner.mapped
    assert mapped is not None  # noqa: S101 - whatever has items has this
    mapped.done += 1
    if item.status in SUCCESSFUL_STATUSES:
        mapped.weight += item.weight
        owner.weight = min(mapped.weight, values.REQUEST_LIMIT + 1)
        if mapped.weight > values.REQUEST_LIMIT and item.attempt:
            # From now on the list of results is a reference, so that long lists do not fill the memory.
            item.outputs = NOTHING
    else:
        mapped.bad += 1
        mapped.first_failed = mapped.first_failed if mapped.first_failed is not None else item.index
        if mapped_steps.cannot_succeed(state.plan.nodes[owner.key].mapped, mapped):
            mapped.closing = True
    if not (mapped.closing and item.status is Status.CANCELLED and item.attempt == 0 and item.stop is None):
        # An item that was fenced before it started keeps its place, so that closing a step fences only the items that
        # replicas without this knowledge may be requesting now: they see the other places become free as well.
        mapped.taken -= 1
    update_mapped_step(state, owner)


def update_mapped_step(state: RunState, step: StepState) -> None:
    """Update a mapped step after a change of its items: it has finished, or its next fact is due, or neither."""
    mapped = step.mapped
    if mapped is None or step.status in TERMINAL_STATUSES:
        return
    while mapped.following in mapped.items:
        mapped.following += 1
    if mapped_steps.wanted(state.plan.nodes[step.key].mapped, mapped):
        state.frontier[step.key] = None
        return
    state.frontier.pop(step.key, None)
    if mapped.done == len(mapped.items) and (mapped.closing or mapped.following >= mapped.count):
        _finish_mapped_step(state, step, mapped)


def _finish_mapped_step(state: RunState, step: StepState, mapped: MappedState) -> None:
    step.finished_at = state.now
    spec = state.plan.nodes[step.key].mapped
    reason = state.stopping(step)
    # Items cut short by a cancel make it cancelled, whatever `min_success` says: how many finished depends on timing.
    # So do items that fail after the cancel: whether they fail or are cut short depends on timing, too.
    cut = reason is not None and any(item.status is Status.CANCELLED for item in mapped.items.values())
    if not cut and not mapped_steps.cannot_succeed(spec, mapped) and mapped.following >= mapped.count:
        end(state, step, "succeeded")
    elif reason is not None:
        cancel_mapped_step(state, step, reason)
    else:
        step.error, step.reason = mapped_steps.failure(spec, mapped)
        end(state, step, "failed")


def cancel_mapped_step(state: RunState, step: StepState, reason: str) -> None:
    """Cancel a mapped step."""
    step.error, step.reason = ErrorInfo(type=mapped_steps.CANCELLED, message=reason), reason
    end(state, step, "cancelled")
