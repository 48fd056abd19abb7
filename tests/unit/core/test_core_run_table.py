"""The state table: allowed transitions happen, others change nothing, and its page is up to date."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penstock_core.facts import (
    AttemptFinished,
    AttemptQueued,
    AttemptRequested,
    AttemptStarted,
    ErrorInfo,
    Fact,
    Outcome,
    RunRequested,
    StepReused,
    StepSkipped,
    StepSuspended,
)
from penstock_core.pipeline.ir import Kind, Node, Pipeline, Retry, StepSpec
from penstock_core.run import machine
from penstock_core.run.machine import IN_FLIGHT, SUCCESSFUL_STATUSES, TERMINAL_STATUSES, TRANSITIONS, RunState, Status
from penstock_testkit.checks.state_machine import dump
from penstock_testkit.docs import run_states

ROOT = Path(__file__).parents[3]
EVENTS = sorted({event for _, event in TRANSITIONS} - {"expanded"})  # which only mapped steps are
BAD = ErrorInfo(type="ValueError", message="no")
A: dict[str, Any] = {"run_id": "r", "key": "a"}

PIPELINE = Pipeline(
    name="f",
    steps={"s": StepSpec(name="s", entrypoint="m:s", retry=Retry(retries=1))},
    nodes=(Node(key="a", step="s"), Node(key="b", step="s", after=("a",))),
)


def requested(attempt: int) -> AttemptRequested:
    return AttemptRequested(
        **A, attempt=attempt, pool="default", project="p", pipeline="f", version=1, entrypoint="m:s"
    )


def finished(attempt: int, outcome: Outcome) -> AttemptFinished:
    return AttemptFinished(**A, attempt=attempt, outcome=outcome, error=BAD if outcome is Outcome.FAILED else None)


RUN = RunRequested(run_id="r", project="p", pipeline="f", version=1)
FAILED = Outcome.FAILED

# How to bring step `a` into each state, with `used` failures so far; the table is then checked from there.
PATHS: dict[Status, list[Fact]] = {
    Status.WAITING: [],
    Status.QUEUED_FOR_LIMIT: [AttemptQueued(**A, attempt=1)],
    Status.SUSPENDED: [StepSuspended(**A, attempt=1, kind=Kind.ASK)],
    Status.QUEUED: [requested(1)],
    Status.RUNNING: [requested(1), AttemptStarted(**A, attempt=1, executor="e")],
    Status.RETRYING: [requested(1), finished(1, FAILED)],
    Status.SUCCEEDED: [requested(1), finished(1, Outcome.SUCCEEDED)],
    Status.CACHED: [requested(1), finished(1, Outcome.CACHED)],
    Status.FAILED: [requested(1), finished(1, FAILED), requested(2), finished(2, FAILED)],
    Status.SKIPPED: [StepSkipped(**A, reason="no")],
    Status.CANCELLED: [requested(1), finished(1, Outcome.CANCELLED)],
}


def brought_to(status: Status, *, used: bool) -> RunState:
    facts = PATHS[status]
    if used and status in (Status.QUEUED_FOR_LIMIT, Status.SUSPENDED):
        facts = [requested(1), finished(1, FAILED), replace(facts[0], attempt=2)]  # type: ignore[call-arg]
    elif used and status in (Status.QUEUED, Status.RUNNING):
        facts = [requested(1), finished(1, FAILED), requested(2)]
        if status is Status.RUNNING:
            facts = [*facts, AttemptStarted(**A, attempt=2, executor="e")]
    state = machine.fold("r", machine.Plan(PIPELINE), [RUN, *facts])
    assert state.steps["a"].status is status
    return state


def fact_of(event: str, state: RunState) -> Fact:
    """Return the next fact that causes `event` for step `a`."""
    step = state.steps["a"]
    attempt = max(step.attempt, 1)
    match event:
        case "requested":
            return requested(step.attempt + 1)
        case "started":
            return AttemptStarted(**A, attempt=attempt, executor="e2", started_at=5.0)
        case "queued_for_limit":
            return AttemptQueued(**A, attempt=step.attempt + 1)
        case "suspended":
            return StepSuspended(**A, attempt=step.attempt + 1, kind=Kind.ASK)
        case "reused":
            return StepReused(**A, from_run="r0")
        case "skipped":
            return StepSkipped(**A, reason="requested")
        case "succeeded" | "cached" | "cancelled":
            # The end of the attempt in flight; a cancel may also claim the end of the next one.
            fence = event == "cancelled" and step.status not in IN_FLIGHT
            return finished(step.attempt + 1 if fence else attempt, Outcome(event))
        case "failed" if step.status is Status.WAITING:
            return StepSkipped(**A, reason="it cannot run", error=BAD)
        case "retry" | "failed":
            return finished(attempt, FAILED)
        case _:
            raise AssertionError(event)


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("status", Status)
def test_only_transitions_in_the_table_happen(status: Status, event: str) -> None:
    state = brought_to(status, used=event == "failed")
    fact = fact_of(event, state)
    before = dump(state)
    state = machine.evolve(state, fact)
    expected = TRANSITIONS.get((status, event))
    if expected is not None:
        assert state.steps["a"].status is expected
    else:
        after = dump(state)
        after["outbox"] = before["outbox"]  # late grants are released
        after["early"] = before["early"]  # an end before its request is stored, and changes nothing yet
        assert after == before


def test_every_state_is_entered_and_left_as_in_the_table() -> None:
    assert set(PATHS) == set(Status)
    assert {status for status, _ in TRANSITIONS} == set(Status) - TERMINAL_STATUSES
    assert {Status.WAITING, *TRANSITIONS.values()} == set(Status)


def test_successful_states_are_terminal_and_none_is_in_flight() -> None:
    assert SUCCESSFUL_STATUSES < TERMINAL_STATUSES
    assert not TERMINAL_STATUSES & IN_FLIGHT


def test_every_nonterminal_state_can_finish() -> None:
    """A step can be cancelled in every state, so no run hangs on it."""
    for status in set(Status) - TERMINAL_STATUSES:
        assert TRANSITIONS[status, "cancelled"] is Status.CANCELLED


def test_the_documentation_page_is_generated_from_the_table() -> None:
    page = (ROOT / run_states.PAGE).read_text()
    assert page == run_states.page(), "run: .venv/bin/python -m penstock_testkit.docs.run_states"
    for (source, event), target in TRANSITIONS.items():
        assert f"    {source} --> {target}: {event}\n" in page
