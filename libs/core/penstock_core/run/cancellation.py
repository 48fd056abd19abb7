"""Stop runs, steps and items before they have finished: cancel requests and timers. Used by `evolve` only."""

from __future__ import annotations

from penstock_core.facts import CancelRequested, ClockReached, Outcome, StepCancelRequested
from penstock_core.run import effects
from penstock_core.run.state import IN_FLIGHT, TERMINAL_STATUSES, RunState, Status, StepState, Stop, item_of
from penstock_core.run.transitions import cancel_mapped_step, update_mapped_step


def stop_run(state: RunState, stop: Stop) -> None:
    """Stop the main phase. The closing steps run afterwards."""
    if state.finished is None and state.stop is None and state.open_main > 0:
        state.stop = stop
        # A run whose closing steps are in flight must not be skipped.
        state.outbox.pop(effects.AdmitRun(), None)
        for step in state.steps.values():
            if step.status not in TERMINAL_STATUSES and state.stopping(step) is not None:
                _close(state, step)


def stop_step(state: RunState, fact: StepCancelRequested) -> None:
    """Stop one step or one item."""
    if state.finished is not None:
        return
    step = state.find(fact.key)
    if step is None:
        name, index = item_of(fact.key)
        owner = state.steps.get(name)
        if owner is None or owner.status in TERMINAL_STATUSES or state.plan.nodes[name].mapped is None:
            return
        if owner.mapped is None or index < owner.mapped.count:
            state.stops.setdefault(fact.key, reason_of(fact))  # applies when the item starts
    elif step.stop is None and step.status not in TERMINAL_STATUSES:
        step.stop = reason_of(fact)
        _close(state, step)


def _close(state: RunState, step: StepState) -> None:
    """Make the end of a step due, and those of its items in flight."""
    if step.mapped is None:
        state.frontier[step.key] = None
        return
    step.mapped.closing = True
    state.frontier.update(
        (item.key, None) for item in step.mapped.items.values() if item.status not in TERMINAL_STATUSES
    )
    update_mapped_step(state, step)


def stop_new_items(state: RunState) -> None:
    """Cancel the mapped steps of a stopped run that has finished.

    The replica that finished it may have known of fewer items that others were requesting, and so have fenced fewer.
    """
    for step in state.steps.values() if state.open else ():
        if (
            step.mapped is not None
            and step.status not in TERMINAL_STATUSES
            and (reason := state.stopping(step)) is not None
        ):
            cancel_mapped_step(state, step, reason)


def reach(state: RunState, fact: ClockReached) -> None:
    """Make everything due whose timer has expired."""
    state.now, state.reached = max(state.now, fact.at), max(state.reached, fact.at)
    while (due := state.next_due(fact.at)) is not None:
        key, attempt = due
        if not key:
            stop_run(state, Stop(Outcome.FAILED, "the run did not finish by its deadline"))
            continue
        step = state.find(key)
        if step is not None and step.attempt == attempt and step.status in IN_FLIGHT - {Status.RUNNING}:
            step.due = True
            state.frontier[key] = None


def reason_of(cancel: CancelRequested | StepCancelRequested) -> str:
    """Describe a cancel request."""
    by = f" by {cancel.by}" if cancel.by else ""
    why = f": {cancel.reason}" if cancel.reason else ""
    return f"cancelled{by}{why}"
