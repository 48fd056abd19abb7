"""What a suspended step waits for, as the API shows it: `penstock_contracts.waits.WaitView`."""

from __future__ import annotations

from typing import Any

from penstock_core.facts import StepSuspended
from penstock_core.pipeline.ir import Kind
from penstock_core.run import child_runs
from penstock_core.run.machine import Status, StepState
from penstock_core.run.suspension import choices, plain


def view(step: StepState) -> dict[str, Any] | None:
    """Return the fields of `WaitView`; None for a step that is not suspended."""
    fact = step.suspended
    if fact is None or step.status is not Status.SUSPENDED:
        return None
    shown: dict[str, Any] = {
        "kind": fact.kind.value,
        "attempt": step.attempt,
        "since": step.since,
        "until": fact.until,
    }
    match fact.kind:
        case Kind.ASK:
            shown |= {
                "question": question(fact),
                "choices": [str(choice) for choice in choices(fact)],
                "default": text(fact, "default"),
            }
        case Kind.EVENT:
            shown |= {"type": text(fact, "type"), "key": text(fact, "key")}
        case Kind.RUN:
            shown |= {"run_id": child_runs.run_id(fact), "pipeline": fact.target}
        case _:
            pass
    return shown


def question(fact: StepSuspended) -> str:
    """Return the text of a question; a generic one for a question that is stored as an artifact."""
    return text(fact, "question") or f"step {fact.key!r} asks"


def text(fact: StepSuspended, name: str) -> str | None:
    """Return an input as text; None when it is missing or not inline."""
    found = plain(fact.inputs.get(name))
    return None if found is None else str(found)
