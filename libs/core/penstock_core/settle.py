"""Moves steps and items from state to state, and tells those that wait for them. Used by `evolve` only."""

from __future__ import annotations

from penstock_core import fans, values
from penstock_core.endings import how_it_ended
from penstock_core.facts import ErrorInfo
from penstock_core.ir import Phase, Rule
from penstock_core.state import FINAL, NOTHING, PASSING, TRANSITIONS, FanState, RunState, Status, StepState


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
    passing = step.status in PASSING
    failed = not passing and not (step.status is Status.SKIPPED and step.expected)
    for key in state.plan.dependents[step.key]:
        dependent = state.steps[key]
        dependent.waiting_on -= 1
        if failed and dependent.because is None:
            dependent.because = step.key
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
    state.ending = how_it_ended(state)
    for key in state.plan.closing:
        step = state.steps[key]
        step.waiting_on -= 1
        if step.status is Status.WAITING and (step.waiting_on == 0 or step.blocker):
            state.frontier[key] = None


# --------------------------------------------------------------------------------------------------------------- items


def _end_item(state: RunState, owner: StepState, item: StepState) -> None:
    fan = owner.fan
    assert fan is not None  # noqa: S101 - whatever has items has this
    fan.done += 1
    if item.status in PASSING:
        fan.weight += item.weight
        owner.weight = min(fan.weight, values.REQUEST_LIMIT + 1)
        if fan.weight > values.REQUEST_LIMIT and item.attempt:
            # The list of results is named by reference from now on, so that a long one does not fill the memory.
            item.outputs = NOTHING
    else:
        fan.bad += 1
        fan.first_bad = fan.first_bad if fan.first_bad is not None else item.index
        if fans.out_of_reach(state.plan.nodes[owner.key].fan, fan):
            fan.closing = True
    if not (fan.closing and item.status is Status.CANCELLED and item.attempt == 0 and item.stop is None):
        # An item that was fenced before it began keeps its place, so that closing a step fences only what others, who
        # do not know of it, may be asking for right now. They see all other places become free, as this replica does.
        fan.taken -= 1
    tell_fan(state, owner)


def tell_fan(state: RunState, step: StepState) -> None:
    """After a change of its items, a mapped step is over, or has something to be decided, or neither."""
    fan = step.fan
    if fan is None or step.status in FINAL:
        return
    while fan.following in fan.items:
        fan.following += 1
    if fans.wanted(state.plan.nodes[step.key].fan, fan):
        state.frontier[step.key] = None
        return
    state.frontier.pop(step.key, None)
    if fan.done == len(fan.items) and (fan.closing or fan.following >= fan.count):
        _end_fan(state, step, fan)


def _end_fan(state: RunState, step: StepState, fan: FanState) -> None:
    step.finished_at = state.now
    spec = state.plan.nodes[step.key].fan
    reason = state.stopping(step)
    # What a cancel cut short is cancelled, however few items must succeed: how many it reached depends on the order.
    cut = reason is not None and any(item.status is Status.CANCELLED for item in fan.items.values())
    if not cut and not fans.out_of_reach(spec, fan) and fan.following >= fan.count:
        end(state, step, "succeeded")
    elif reason is not None:
        cancel_fan(state, step, reason)
    else:
        step.error, step.reason = fans.failure(spec, fan)
        end(state, step, "failed")


def cancel_fan(state: RunState, step: StepState, reason: str) -> None:
    """End a mapped step before its time."""
    step.error, step.reason = ErrorInfo(type=fans.CANCELLED, message=reason), reason
    end(state, step, "cancelled")
