"""What a suspended step waits for, as the API shows it."""

from __future__ import annotations

from functools import partial

from penstock_contracts.waits import WaitView
from penstock_core.facts import StepSuspended
from penstock_core.pipeline.ir import Kind
from penstock_core.run import child_runs
from penstock_core.run.machine import Status, StepState
from penstock_core.run.suspension import choices, plain


def view(step: StepState) -> WaitView | None:
    """Return what a step waits for; None for a step that is not suspended."""
    fact = step.suspended
    if fact is None or step.status is not Status.SUSPENDED:
        return None
    wait = partial(WaitView, attempt=step.attempt, since=step.since, until=fact.until)
    match fact.kind:
        case Kind.ASK:
            offered = [str(choice) for choice in choices(fact)]
            return wait(kind="ask", question=question(fact), choices=offered, default=text(fact, "default"))
        case Kind.EVENT:
            return wait(kind="event", type=text(fact, "type"), key=text(fact, "key"))
        case Kind.RUN:
            return wait(kind="run", run_id=child_runs.run_id(fact), pipeline=fact.target)
        case _:
            return wait(kind="sleep")


def question(fact: StepSuspended) -> str:
    """Return the text of a question; a generic one for a question that is stored as an artifact."""
    return text(fact, "question") or f"step {fact.key!r} asks"


def text(fact: StepSuspended, name: str) -> str | None:
    """Return an input as text; None when it is missing or not inline."""
    found = plain(fact.inputs.get(name))
    return None if found is None else str(found)
