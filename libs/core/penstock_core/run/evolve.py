"""`evolve(state, fact) -> state`: fold one fact into the state of a run.

`evolve` is total (no fact raises; facts that do not apply change nothing) and idempotent (folding a fact twice has no
further effect). It takes ownership of its argument, which must not be used afterwards, so that the cost of a fact does
not depend on the size of the run.
"""

from __future__ import annotations

from collections.abc import Iterable

from penstock_core.facts import (
    SUCCESSFUL,
    AttemptFinished,
    AttemptQueued,
    AttemptRequested,
    AttemptStarted,
    AttemptStopped,
    CancelRequested,
    ClockReached,
    Fact,
    Outcome,
    RunAdmitted,
    RunFinished,
    RunRequested,
    SlotGranted,
    StepCancelRequested,
    StepExpanded,
    StepReused,
    StepSkipped,
    StepSuspended,
)
from penstock_core.pipeline import values
from penstock_core.pipeline.ir import Kind
from penstock_core.run import effects, mapped_steps, retry
from penstock_core.run.cancellation import reach, reason_of, stop_new_items, stop_run, stop_step
from penstock_core.run.plan import Plan
from penstock_core.run.state import (
    IN_FLIGHT,
    TERMINAL_STATUSES,
    MappedState,
    RunState,
    Status,
    StepState,
    Stop,
    item_of,
)
from penstock_core.run.transitions import end, move, update_mapped_step


def fold(run_id: str, plan: Plan, facts: Iterable[Fact]) -> RunState:
    """Return the state of a run after `facts`."""
    state = RunState(run_id, plan)
    for fact in facts:
        state = evolve(state, fact)
    return state


def evolve(state: RunState, fact: Fact) -> RunState:
    """Fold one fact. Takes ownership of `state` and returns it."""
    if fact.run_id != state.run_id:
        return state
    match fact:
        case AttemptFinished():
            _finished(state, fact)
        case AttemptRequested():
            _requested(state, fact)
        case AttemptStarted():
            _started(state, fact)
        case AttemptQueued():
            _queued(state, fact)
        case AttemptStopped():
            state.outbox[effects.ReleaseSlots(fact.key, fact.attempt)] = None
        case SlotGranted():
            _granted(state, fact)
        case StepSkipped():
            _skipped(state, fact)
        case StepExpanded():
            _expanded(state, fact)
        case StepSuspended():
            _suspended(state, fact)
        case StepReused():
            _reused(state, fact)
        case _:
            _of_run(state, fact)
    return state


def _run_requested(state: RunState, fact: RunRequested) -> None:
    state.requested = fact
    state.now = max(state.now, fact.requested_at)
    state.admitted = not state.needs_admission
    if state.awaits_admission:
        state.outbox[effects.AdmitRun()] = None
    if fact.deadline is not None:
        state.arm("", 0, fact.deadline)


def _of_run(state: RunState, fact: Fact) -> None:
    match fact:
        case RunRequested() if state.requested is None:
            _run_requested(state, fact)
        case RunAdmitted():
            state.admitted = True
            state.outbox.pop(effects.AdmitRun(), None)
            if state.finished is not None:
                state.outbox[effects.ReleaseRun()] = None
        case CancelRequested():
            state.cancel = state.cancel or fact
            stop_run(state, Stop(Outcome.CANCELLED, reason_of(fact)))
        case StepCancelRequested():
            stop_step(state, fact)
        case ClockReached():
            reach(state, fact)
        case RunFinished() if state.finished is None:
            stop_new_items(state)
            state.finished = fact
            state.alarms.clear()
            state.outbox.pop(effects.AdmitRun(), None)
            if state.needs_admission:
                state.outbox[effects.ReleaseRun()] = None
            if state.requested is not None and state.requested.caller is not None:
                state.outbox[effects.NotifyCaller()] = None
        case _:
            return


# ------------------------------------------------------------------------------------------------------------ attempts


def _startable(state: RunState, key: str, attempt: int) -> StepState | None:
    """Return the step or item whose attempt may start now. An item exists from its first attempt on."""
    step = state.find(key)
    if step is None:
        return _new_item(state, key) if attempt == 1 else None
    # The work of a mapped step is done by its items.
    return None if step.mapped is not None or (step.index is None and _is_mapped(state, key)) else step


def _is_mapped(state: RunState, key: str) -> bool:
    return state.plan.nodes[key].mapped is not None


def _new_item(state: RunState, key: str) -> StepState | None:
    name, index = item_of(key)
    owner = state.steps.get(name)
    if (
        owner is None
        or owner.mapped is None
        or owner.status in TERMINAL_STATUSES
        or not 0 <= index < owner.mapped.count
    ):
        return None
    item = owner.mapped.items[index] = StepState(key, name, index, stop=state.stops.pop(key, None))
    owner.mapped.taken += 1
    return item


def _already_finished(state: RunState, key: str, attempt: int) -> bool:
    """Whether a fact starts an attempt of a step that had finished: its writer did not know, and it has no effect."""
    step = state.find(key)
    if step is not None:
        return step.status in TERMINAL_STATUSES and attempt > step.attempt
    owner = state.steps.get(item_of(key)[0])
    return owner is not None and owner.status in TERMINAL_STATUSES


def _queued(state: RunState, fact: AttemptQueued) -> None:
    step = _startable(state, fact.key, fact.attempt)
    if step is None or fact.attempt != step.attempt + 1 or not move(step, "queued_for_limit"):
        if _already_finished(state, fact.key, fact.attempt):
            state.outbox[effects.ReleaseSlots(fact.key, fact.attempt)] = None
        return
    _start_attempt(state, step, fact.attempt)
    step.queued_attempt, step.since, step.limits = fact.attempt, fact.since, fact.limits
    state.outbox[effects.AcquireSlots(step.key, step.attempt)] = None
    if fact.start_by is not None:
        step.start_by = fact.start_by
        _arm(state, step, fact.start_by)
    _apply_early(state, step)


def _granted(state: RunState, fact: SlotGranted) -> None:
    step = state.find(fact.key)
    if step is not None and step.status is Status.QUEUED_FOR_LIMIT and step.attempt == fact.attempt:
        step.granted = fact.attempt
        state.outbox.pop(effects.AcquireSlots(step.key, step.attempt), None)
        state.frontier[step.key] = None
    elif _already_finished(state, fact.key, fact.attempt) or (
        step is not None
        and (fact.attempt < step.attempt or (fact.attempt == step.attempt and step.status not in IN_FLIGHT))
    ):
        # Granted after the attempt had finished, so its slots may have been released before they were acquired.
        state.outbox[effects.ReleaseSlots(fact.key, fact.attempt)] = None


def _requested(state: RunState, fact: AttemptRequested) -> None:
    step = _startable(state, fact.key, fact.attempt)
    if step is None or step.status in TERMINAL_STATUSES:
        if _already_finished(state, fact.key, fact.attempt):
            state.outbox[effects.KillAttempt(fact.key, fact.attempt)] = None
        return
    was_queued = step.status is Status.QUEUED_FOR_LIMIT and fact.attempt == step.attempt
    if not was_queued and fact.attempt != step.attempt + 1:
        return
    if not move(step, "requested"):
        return
    _start_attempt(state, step, fact.attempt)
    step.not_before = fact.not_before
    if fact.start_by is not None:
        step.start_by = fact.start_by
        _arm(state, step, fact.start_by)
    _apply_early(state, step)


def _suspended(state: RunState, fact: StepSuspended) -> None:
    step = _startable(state, fact.key, fact.attempt)
    if step is None or fact.attempt != step.attempt + 1 or not move(step, "suspended"):
        if _already_finished(state, fact.key, fact.attempt):
            _abandon(state, fact)
        return
    _start_attempt(state, step, fact.attempt)
    step.suspended = fact
    step.since = step.started_at = state.now
    if fact.until is not None:
        _arm(state, step, fact.until)
    match fact.kind:
        case Kind.EVENT:
            state.outbox[effects.SubscribeEvent(step.key, step.attempt)] = None
        case Kind.RUN:
            state.outbox[effects.StartChildRun(step.key, step.attempt)] = None
        case _:
            pass
    _apply_early(state, step)


def _abandon(state: RunState, fact: StepSuspended) -> None:
    """End what a wait started outside the log."""
    if fact.kind is Kind.EVENT:
        state.outbox[effects.UnsubscribeEvent(fact.key, fact.attempt)] = None
    elif fact.kind is Kind.RUN:
        state.outbox[effects.CancelChildRun(fact.key, fact.attempt)] = None


def _start_attempt(state: RunState, step: StepState, attempt: int) -> None:
    """Reset what the previous attempt left. Its error stays until the next end, to be shown."""
    step.attempt = attempt
    step.executor, step.started_at, step.finished_at = "", 0.0, 0.0
    step.start_by, step.due = None, False
    if state.stopping(step) is None:
        state.frontier.pop(step.key, None)
    else:
        state.frontier[step.key] = None
    if step.index is not None:
        update_mapped_step(state, state.steps[step.node])


def _arm(state: RunState, step: StepState, at: float) -> None:
    """Set the timer of the present attempt. The clock may have reached that time before."""
    if at > state.reached:
        state.arm(step.key, step.attempt, at)
    else:
        step.due = True
        state.frontier[step.key] = None


def _apply_early(state: RunState, step: StepState) -> None:
    if (known := state.early.pop((step.key, step.attempt), None)) is not None:
        _finished(state, known)


def _started(state: RunState, fact: AttemptStarted) -> None:
    step = state.find(fact.key)
    if step is not None and fact.attempt == step.attempt and move(step, "started"):
        step.started_at = fact.started_at
        step.executor = fact.executor
        state.alarms.pop((step.key, step.attempt), None)
        if step.due:
            step.due = False
            if state.stopping(step) is None:
                state.frontier.pop(step.key, None)


def _finished(state: RunState, fact: AttemptFinished) -> None:
    step = state.find(fact.key)
    if step is None:
        owner = state.steps.get(item_of(fact.key)[0])
        if owner is not None and owner.status not in TERMINAL_STATUSES and _is_mapped(state, owner.key):
            state.now = max(state.now, fact.finished_at)
            _finished_unstarted_item(state, fact)
        return
    state.now = max(state.now, fact.finished_at)
    if fact.attempt > step.attempt and step.status not in TERMINAL_STATUSES:
        if fact.outcome is Outcome.CANCELLED and step.status not in IN_FLIGHT and step.mapped is None:
            # The next attempt was cancelled before anybody requested it: the step cannot go on.
            step.error, step.reason = fact.error, _why(fact, "cancelled")
            if state.plan.specs[step.node].kind is Kind.RUN:
                state.outbox[effects.CancelChildRun(step.key, fact.attempt)] = None
            end(state, step, "cancelled")
        else:
            # The request of this attempt is not folded yet: keep the end and apply it after the request.
            state.early.setdefault((fact.key, fact.attempt), fact)
        return
    if fact.attempt != step.attempt or step.status not in IN_FLIGHT or step.mapped is not None:
        return
    _release(state, step, fact)
    step.executor = fact.executor or step.executor
    step.started_at, step.finished_at = fact.started_at or step.started_at, fact.finished_at
    step.metrics, step.params, step.artifacts, step.error = fact.metrics, fact.params, fact.artifacts, fact.error
    step.cache, step.tags, step.non_finite = fact.cache, fact.tags, fact.non_finite
    if fact.outcome in SUCCESSFUL:
        step.outputs = fact.outputs
        step.weight = sum(values.weight(value) for value in fact.outputs.values())
        if fact.models and fact.outcome is Outcome.SUCCEEDED and not state.shadow:
            state.outbox[effects.RegisterModels(step.key, step.attempt)] = None
        if (fact.events or fact.artifacts) and fact.outcome is Outcome.SUCCEEDED and not state.shadow:
            state.outbox[effects.PublishEvents(step.key, step.attempt)] = None
        end(state, step, "cached" if fact.outcome is Outcome.CACHED else "succeeded")
    else:
        _unsuccessful(state, step, fact)


def _finished_unstarted_item(state: RunState, fact: AttemptFinished) -> None:
    """Fold the end of an item that has not started: a fence, or an end whose request is not folded yet."""
    # The subject before that of the fence may hold an unreadable end, which counts as lost.
    first = fact.attempt == 1 or (fact.key, fact.attempt - 1) in state.early
    item = _new_item(state, fact.key) if fact.outcome is Outcome.CANCELLED and first else None
    if item is not None:
        item.error, item.reason = fact.error, _why(fact, "cancelled")
        end(state, item, "cancelled")
    else:
        state.early.setdefault((fact.key, fact.attempt), fact)


def _unsuccessful(state: RunState, step: StepState, fact: AttemptFinished) -> None:
    if fact.outcome is Outcome.LOST:
        step.losses += 1
    elif fact.outcome is not Outcome.CANCELLED:
        step.failures += 1
        step.shortages += fact.error is not None and fact.error.type == "OutOfMemory"
    history = retry.History(
        run_id=state.run_id, key=step.key, attempt=step.attempt, failures=step.failures, losses=step.losses
    )
    decision = retry.decide(state.plan.specs[step.node].retry, history, fact.outcome, fact.error)
    step.reason = _why(fact, decision.reason) if fact.outcome is Outcome.CANCELLED else decision.reason
    if decision.again:
        move(step, "retry")
        step.not_before = fact.finished_at + decision.delay if decision.delay and fact.finished_at else None
        state.frontier[step.key] = None
    else:
        end(state, step, "cancelled" if fact.outcome is Outcome.CANCELLED else "failed")


def _release(state: RunState, step: StepState, fact: AttemptFinished) -> None:
    """Release what an attempt has outside the log."""
    attempt = (step.key, step.attempt)
    state.alarms.pop(attempt, None)
    step.due = False
    if step.queued_attempt == step.attempt:
        state.outbox.pop(effects.AcquireSlots(*attempt), None)
        state.outbox[effects.ReleaseSlots(*attempt)] = None
    if step.suspended is not None and step.suspended.attempt == step.attempt:
        # The child run has finished, so it must not be started again, although its log may have been deleted.
        state.outbox.pop(effects.SubscribeEvent(*attempt), None)
        state.outbox.pop(effects.StartChildRun(*attempt), None)
        if step.suspended.kind is Kind.EVENT or fact.outcome not in SUCCESSFUL:
            _abandon(state, step.suspended)
    elif not fact.executor and fact.outcome not in SUCCESSFUL and step.status is not Status.QUEUED_FOR_LIMIT:
        state.outbox[effects.KillAttempt(*attempt)] = None


# --------------------------------------------------------------------------------------------------------------- steps


def _skipped(state: RunState, fact: StepSkipped) -> None:
    step = _startable(state, fact.key, 1) or state.steps.get(fact.key)
    if step is None or step.status is not Status.WAITING:
        return
    step.reason, step.expected, step.error = fact.reason, fact.expected, fact.error
    step.blocker = step.blocker or fact.cause
    end(state, step, "failed" if fact.error is not None else "skipped")


def _expanded(state: RunState, fact: StepExpanded) -> None:
    step = state.steps.get(fact.key)
    if step is None or not _is_mapped(state, fact.key) or step.status is not Status.WAITING:
        return
    if fact.error is not None:
        step.error, step.reason = fact.error, fact.error.message
        end(state, step, "cancelled" if fact.error.type == mapped_steps.CANCELLED else "failed")
        return
    move(step, "expanded")
    step.started_at = state.now
    step.mapped = MappedState(max(0, fact.count))
    step.mapped.closing = state.stopping(step) is not None
    for index, known in sorted(state.reused.pop(step.key, {}).items()):
        item = _new_item(state, f"{step.key}[{index}]")
        if item is not None:
            _reuse(item, known)
            end(state, item, "reused")
    update_mapped_step(state, step)


def _reused(state: RunState, fact: StepReused) -> None:
    step = state.steps.get(fact.key)
    if step is None:
        name, index = item_of(fact.key)
        if name in state.steps and state.steps[name].status is Status.WAITING:
            state.reused.setdefault(name, {}).setdefault(index, fact)
    elif step.status is Status.WAITING:
        _reuse(step, fact)
        if fact.count is not None:
            step.mapped = MappedState(fact.count, following=fact.count, done=fact.count, source=fact.from_run)
        end(state, step, "reused")


def _reuse(step: StepState, fact: StepReused) -> None:
    step.outputs, step.metrics, step.params, step.artifacts = fact.outputs, fact.metrics, fact.params, fact.artifacts
    step.weight = sum(values.weight(value) for value in fact.outputs.values())
    step.tags, step.non_finite = fact.tags, fact.non_finite
    step.from_run, step.reason = fact.from_run, f"reused its result from run {fact.from_run}"


def _why(fact: AttemptFinished, otherwise: str) -> str:
    return fact.error.message if fact.error and fact.error.message else otherwise
