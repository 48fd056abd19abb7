"""Explanations: every step in any state has a helpful reason."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_core.facts import (
    AttemptFinished,
    AttemptRequested,
    AttemptStarted,
    CancelRequested,
    ErrorInfo,
    Fact,
    Outcome,
    RunFinished,
    RunRequested,
    StepSkipped,
)
from penstock_core.pipeline import ir
from penstock_core.run import machine, wait_reasons
from penstock_core.run.explain import StepReason, explain
from penstock_core.run.machine import TERMINAL_STATUSES, Status
from penstock_testkit import strategies
from penstock_testkit.checks.state_machine import dump

RUN = "r"
NOW = 100_000.0


def line_of(*keys: str, **policy: object) -> machine.Plan:
    """Sequential steps."""
    spec = ir.StepSpec(name="s", entrypoint="m:s", pool="gpu", timeout=600.0, retry=ir.Retry(**policy))  # type: ignore[arg-type]
    nodes = [ir.Node(key=key, step="s", after=keys[at - 1 : at] if at else ()) for at, key in enumerate(keys)]
    return machine.Plan(ir.Pipeline(name="f", steps={"s": spec}, nodes=tuple(nodes)))


REQUESTED = RunRequested(run_id=RUN, project="p", pipeline="f", version=1)
LOST = ErrorInfo(type="Lost", message="the executor went away")
BOOM = ErrorInfo(type="ValueError", message="two\nlines", bases=("Exception",))


def attempt(key: str, number: int = 1, **more: object) -> AttemptRequested:
    fields = {"pool": "gpu", "project": "p", "pipeline": "f", "version": 1, "entrypoint": "m:s"} | more
    return AttemptRequested(run_id=RUN, key=key, attempt=number, **fields)  # type: ignore[arg-type]


def started(key: str, number: int = 1) -> AttemptStarted:
    return AttemptStarted(run_id=RUN, key=key, attempt=number, executor="box-1", started_at=99_990.0)


def ended(key: str, outcome: Outcome, error: ErrorInfo | None = None, number: int = 1) -> AttemptFinished:
    return AttemptFinished(
        run_id=RUN, key=key, attempt=number, outcome=outcome, error=error, started_at=99_990.0, finished_at=99_992.0
    )


def reasons(plan: machine.Plan, *facts: Fact, now: float = NOW, **asked: float) -> dict[str, StepReason]:
    return {one.key: one for one in explain(machine.fold(RUN, plan, facts), now, asked)}


@st.composite
def states(draw: st.DrawFn) -> machine.RunState:
    """States after arbitrary facts, mostly starting like a run."""
    pipeline = draw(strategies.pipelines())
    state = machine.RunState(strategies.RUN, machine.Plan(pipeline))
    for fact in draw(st.lists(strategies.facts(pipeline), max_size=25)):
        state = machine.evolve(state, fact)
        for decided in machine.decide(state) if draw(st.booleans()) else ():
            state = machine.evolve(state, decided)
    return state


@given(states(), st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_every_step_of_any_state_has_a_reason(state: machine.RunState, now: float, at: float) -> None:
    before = dump(state)
    found = explain(state, now, dict.fromkeys(state.steps, at))
    assert [one.key for one in found] == list(state.steps)
    for one in found:
        step = state.steps[one.key]
        assert one.status is step.status
        assert one.sentence.strip() and "\n" not in one.sentence
        assert set(one.caused_by) <= state.steps.keys()
        needs = any(state.steps[key].status not in TERMINAL_STATUSES for key in state.plan.dependencies[one.key])
        free = state.admitted and state.finished is None and state.stopping(step) is None
        if step.status is Status.WAITING and needs and free:
            assert one.caused_by, "what waits says for which steps"
    assert dump(state) == before


@given(states())
def test_a_waiting_step_names_exactly_its_unfinished_dependencies(state: machine.RunState) -> None:
    for one in explain(state, NOW):
        step = state.steps[one.key]
        free = state.admitted and state.cancel is state.finished is None and state.stopping(step) is None
        if one.status is Status.WAITING and step.blocker is None and free:
            needs = state.plan.dependencies[one.key]
            assert set(one.caused_by) == {key for key in needs if state.steps[key].status not in TERMINAL_STATUSES}


def test_waiting_names_the_steps_and_their_states() -> None:
    found = reasons(line_of("a", "b", "c"), REQUESTED, attempt("a"), started("a"))
    assert (found["b"].sentence, found["b"].caused_by) == ("waits for step 'a' (running)", ("a",))
    assert found["c"].sentence == "waits for step 'b' (waiting)"
    spec = ir.StepSpec(name="s", entrypoint="m:s")
    many = [ir.Node(key=f"n{at}", step="s") for at in range(9)]
    join = ir.Node(key="join", step="s", after=tuple(node.key for node in many))
    wide = machine.Plan(ir.Pipeline(name="f", steps={"s": spec}, nodes=(*many, join)))
    facts = [attempt("n0"), ended("n0", Outcome.SUCCEEDED)]
    one = reasons(wide, REQUESTED, *facts)["join"]
    assert "'n1' (waiting)" in one.sentence and "and 4 more (8 of 9 not finished)" in one.sentence
    assert one.caused_by == tuple(f"n{at}" for at in range(1, 9))


def test_a_ready_step_waits_for_the_scheduler() -> None:
    assert "no scheduler is running" in reasons(line_of("a"), REQUESTED)["a"].sentence
    assert reasons(line_of("a"))["a"].sentence == "the run has not been requested yet"


def test_queued_says_since_when_and_in_which_pool() -> None:
    one = reasons(line_of("a"), REQUESTED, attempt("a"), a=99_970.0)["a"]
    assert one.sentence == "attempt 1 is queued for 30.0 s: no executor of pool 'gpu' has started it yet"
    assert one.since == 99_970.0
    assert "is queued: no executor" in reasons(line_of("a"), REQUESTED, attempt("a"))["a"].sentence


def test_a_delayed_attempt_says_how_long_and_by_which_rule() -> None:
    plan = line_of("a", retries=2, delay=60.0)
    facts = [REQUESTED, attempt("a"), ended("a", Outcome.FAILED, BOOM)]
    one = reasons(plan, *facts)["a"]
    assert one.status is Status.RETRYING and one.since == 99_992.0
    assert one.sentence == (
        "attempt 1 did not succeed: ValueError: two lines; retry 1 of 2; 1 failure; the next attempt starts in 52.0 s"
    )
    facts.append(attempt("a", 2, not_before=100_052.0))
    assert "attempt 2 is delayed and starts in 52.0 s (before: ValueError" in reasons(plan, *facts)["a"].sentence
    assert "is queued for 8.0 s" in reasons(plan, *facts, now=100_060.0, a=99_992.0)["a"].sentence


def test_running_says_where_for_how_long_and_after_what() -> None:
    one = reasons(line_of("a"), REQUESTED, attempt("a"), started("a"))["a"]
    assert one.sentence == "attempt 1 runs on box-1 for 10.0 s, at most 10 min"
    assert one.since == 99_990.0
    again = [REQUESTED, attempt("a"), ended("a", Outcome.LOST, LOST), attempt("a", 2), started("a", 2)]
    sentence = reasons(line_of("a"), *again)["a"].sentence
    assert "attempt 2 runs" in sentence and "lost to the infrastructure; 1 loss" in sentence


def test_failed_says_the_error_and_why_it_is_not_retried() -> None:
    facts = [REQUESTED, attempt("a"), ended("a", Outcome.FAILED, BOOM)]
    assert reasons(line_of("a"), *facts)["a"].sentence == (
        "attempt 1 failed in 2.0 s: ValueError: two lines (retries used: 0 of 0; 1 failure)"
    )
    picky = line_of("a", retries=3, on=("OSError",))
    assert "(not retried: only OSError are retried; 1 failure" in reasons(picky, *facts)["a"].sentence
    long = replace(BOOM, message="x" * 5_000)
    assert len(reasons(line_of("a"), REQUESTED, attempt("a"), ended("a", Outcome.FAILED, long))["a"].sentence) < 600


def test_skipped_names_the_step_before_it_and_the_first_cause() -> None:
    facts: list[Fact] = [REQUESTED, attempt("a"), ended("a", Outcome.FAILED, BOOM)]
    plan = line_of("a", "b", "c")
    assert reasons(plan, *facts)["b"].sentence == "will be skipped: step 'a' failed"
    facts.append(StepSkipped(run_id=RUN, key="b", reason="step 'a' failed", cause="a"))
    facts.append(StepSkipped(run_id=RUN, key="c", reason="step 'b' was skipped", cause="b"))
    found = reasons(plan, *facts)
    assert found["b"].sentence == "never ran: step 'a' failed: ValueError: two lines"
    assert found["c"].sentence == (
        "never ran: step 'b' was skipped; root cause: step 'a' failed: ValueError: two lines"
    )
    assert found["c"].caused_by == ("b", "a")


def test_a_cycle_of_skips_terminates() -> None:
    facts = [StepSkipped(run_id=RUN, key=key, reason="x", cause=other) for key, other in (("a", "b"), ("b", "a"))]
    found = reasons(line_of("a", "b"), REQUESTED, *facts)
    assert found["a"].sentence.startswith("never ran: x") and found["b"].caused_by


def test_cancelled_says_who_and_why() -> None:
    cancel = CancelRequested(run_id=RUN, by="ada", reason="wrong data")
    plan = line_of("a", "b")
    before = reasons(plan, REQUESTED, attempt("a"), started("a"), cancel)
    assert before["a"].sentence.endswith("it will be cancelled: the run was cancelled by ada: wrong data")
    assert before["b"].sentence.startswith("it will be cancelled")
    state = machine.fold(RUN, plan, [REQUESTED, attempt("a"), started("a"), cancel])
    for fact in machine.decide(state):
        state = machine.evolve(state, fact)
    sentences = [one.sentence for one in explain(state, NOW)]
    assert sentences == [
        "attempt 1 was stopped: cancelled by ada: wrong data",
        "never ran: cancelled by ada: wrong data",
    ]


def test_succeeded_says_duration_and_attempts() -> None:
    facts = [REQUESTED, attempt("a"), ended("a", Outcome.FAILED, BOOM), attempt("a", 2)]
    done = replace(ended("a", Outcome.SUCCEEDED, number=2), executor="box-1")
    one = reasons(line_of("a", retries=1), *facts, done)["a"]
    assert one.sentence == "attempt 2 succeeded in 2.0 s on box-1 (after 1 failure)"
    cached = reasons(line_of("a"), REQUESTED, attempt("a"), ended("a", Outcome.CACHED))["a"]
    assert "the result of an earlier attempt" in cached.sentence


def test_nothing_is_pending_after_a_terminal_state() -> None:
    end = RunFinished(run_id=RUN, outcome=Outcome.FAILED)
    assert reasons(line_of("a"), REQUESTED, end)["a"].sentence == "the run has finished (failed)"


@pytest.mark.parametrize(
    ("lasted", "words"), [(0.0, "0 ms"), (-5.0, "0 ms"), (125.0, "2 min"), (9_000.0, "2 h 30 min")]
)
def test_durations_are_human_readable(lasted: float, words: str) -> None:
    one = reasons(line_of("a"), REQUESTED, attempt("a"), now=NOW, a=NOW - lasted)["a"]
    assert f"is queued for {words}:" in one.sentence


def test_a_long_chain_of_skips_costs_one_walk() -> None:
    keys = [f"n{at}" for at in range(20_000)]
    facts: list[Fact] = [REQUESTED, attempt("n0"), ended("n0", Outcome.FAILED, BOOM)]
    pairs = zip(keys[1:], keys, strict=False)
    facts += [StepSkipped(run_id=RUN, key=key, reason=f"because of {other}", cause=other) for key, other in pairs]
    state = machine.fold(RUN, line_of(*keys), facts)
    begin = time.process_time()
    found = explain(state, NOW)
    assert time.process_time() - begin < 5
    assert found[-1].caused_by == ("n19998", "n0")


def test_times_outside_the_calendar_are_shown() -> None:
    assert wait_reasons._at(1e18) == "1e+18 s after 1970"
    assert wait_reasons._at(0.0) == "1970-01-01 00:00:00 UTC"
