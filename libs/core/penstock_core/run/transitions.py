"""Moves steps and items from state to state, and tells those that wait for them. Used by `evolve` only."""

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
    """Move a step as the table says; False when the table has no such move."""
    status = TRANSITIONS.get((step.status, event))
    if status is None:
        return False
    step.status = status
    return True


def end(state: RunState, step: StepState, event: str) -> None:
    """Move a step or an item to a final status, and tell those that wait for it."""
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
            _main_is_over(state)


def _main_is_over(state: RunState) -> None:
    """The run proper is over: what runs at the end has its turn."""
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
            # The list of results is named by reference from now on, so that a long one does not fill the memory.
            item.outputs = NOTHING
    else:
        mapped.bad += 1
        mapped.first_failed = mapped.first_failed if mapped.first_failed is not None else item.index
        if mapped_steps.cannot_succeed(state.plan.nodes[owner.key].mapped, mapped):
            mapped.closing = True
    if not (mapped.closing and item.status is Status.CANCELLED and item.attempt == 0 and item.stop is None):
        # An item that was fenced before it began keeps its place, so that closing a step fences only what others, who
        # do not know of it, may be asking for right now. They see all other places become free, as this replica does.
        mapped.taken -= 1
    update_mapped_step(state, owner)


def update_mapped_step(state: RunState, step: StepState) -> None:
    """After a change of its items, a mapped step is over, or has something to be decided, or neither."""
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
    # What a cancel cut short is cancelled, however few items must succeed: how many it reached depends on the order.
    cut = reason is not None and any(item.status is Status.CANCELLED for item in mapped.items.values())
    if not cut and not mapped_steps.cannot_succeed(spec, mapped) and mapped.following >= mapped.count:
        end(state, step, "succeeded")
    elif reason is not None:
        cancel_mapped_step(state, step, reason)
    else:
        step.error, step.reason = mapped_steps.failure(spec, mapped)
        end(state, step, "failed")


def cancel_mapped_step(state: RunState, step: StepState, reason: str) -> None:
    """End a mapped step before its time."""
    step.error, step.reason = ErrorInfo(type=mapped_steps.CANCELLED, message=reason), reason
    end(state, step, "cancelled")
