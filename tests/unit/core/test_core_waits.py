"""Steps that wait without a process: questions, events, sleeps and runs of other pipelines; and the clock."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from penstock_core.facts import (
    AttemptFinished,
    AttemptStarted,
    ErrorInfo,
    Fact,
    Outcome,
    RunRequested,
    StepSuspended,
)
from penstock_core.pipeline import values
from penstock_core.pipeline.ir import Kind, Pipeline, Retry
from penstock_core.pipeline.values import Inline, Output
from penstock_core.run import machine
from penstock_core.run.effects import CancelChildRun, StartChildRun, SubscribeEvent, UnsubscribeEvent
from penstock_testkit.run_driver import (
    CANCEL,
    FAILED,
    LOST,
    OK,
    RUN,
    R,
    RunDriver,
    cancel,
    clock,
    end,
    mapped_node,
    node,
    with_options,
)
from penstock_testkit.run_driver import pipeline as plain

NOW = replace(RUN, requested_at=1_000.0)


def waiting(kind: Kind, **inputs: values.Binding) -> Pipeline:
    made = plain(node("w", **inputs), node("next", x=Output("w")))
    return with_options(
        made, "w", kind=kind, timeout=None, target="other" if kind is Kind.RUN else "", target_version=2
    )


def ended(driver: RunDriver, *facts: Fact) -> AttemptFinished:
    return next(fact for fact in driver.facts(*facts) if isinstance(fact, AttemptFinished))


# -------------------------------------------------------------------------------------------------------------- sleeps


@pytest.mark.parametrize(
    ("inputs", "until"),
    [
        ({"seconds": Inline(60)}, 1_060.0),
        ({"seconds": Inline(0)}, 1_000.0),
        ({"seconds": Inline(0.5)}, 1_000.5),
        ({"until": Inline(5_000)}, 5_000.0),
        ({"until": Inline("1970-01-01T02:00:00")}, 7_200.0),
        ({"until": Inline("1970-01-01T02:30:00+02:00")}, 1_800.0),
    ],
)
def test_a_sleep_ends_at_its_time(inputs: dict[str, values.Binding], until: float) -> None:
    driver = RunDriver(waiting(Kind.SLEEP, **inputs))
    (fact,) = driver.facts(NOW)
    assert isinstance(fact, StepSuspended)
    assert (fact.kind, fact.until) == (Kind.SLEEP, until)
    assert driver.state.alarm() == until
    assert driver(clock(until - 0.25)) == []
    driver = RunDriver(waiting(Kind.SLEEP, **inputs), NOW)
    awake = ended(driver, clock(until))
    assert (awake.outcome, awake.finished_at, awake.outputs) == (OK, max(until, 1_000.0), {})
    assert driver.statuses == {"w": "succeeded", "next": "queued"}


@pytest.mark.parametrize(
    ("inputs", "why"),
    [
        ({"seconds": Inline("x")}, "a sleep needs a number of seconds, not 'x'"),
        ({"seconds": Inline(True)}, "a sleep needs a number of seconds, not True"),
        ({"seconds": Inline(-1)}, "a sleep needs a number of seconds, not -1"),
        ({"seconds": Inline({"$type": "float", "value": "nan"})}, "a sleep needs a number of seconds, not nan"),
        ({"seconds": Inline(10**5000)}, "a sleep needs a number of seconds, not a int too large to show"),
        ({"until": Inline("soon")}, "'soon' is not a time: pass Unix seconds or a date and time"),
        ({"until": Inline(10**5000)}, "a int too large to show is not a time: pass Unix seconds or a date and time"),
        ({"until": Inline(1e12)}, "the time 1000000000000.0 to sleep until is out of range"),
        ({"seconds": Inline(9e10 + 9e9 + 9e8)}, None),
        ({}, "a sleep needs a number of seconds, not None"),
    ],
)
def test_an_invalid_time_fails_the_step(inputs: dict[str, values.Binding], why: str | None) -> None:
    driver = RunDriver(waiting(Kind.SLEEP, **inputs), NOW)
    assert driver.statuses["w"] == ("failed" if why else "suspended")
    if why:
        assert driver.finished.error == f"step 'w' failed: InputError: an input is missing: {why}"


# ----------------------------------------------------------------------------------------------------------- questions


ASK: dict[str, values.Binding] = {"question": Inline("ship it?"), "choices": Inline(["yes", "no"])}


def test_a_question_waits_for_its_answer() -> None:
    driver = RunDriver(waiting(Kind.ASK, **ASK))
    (fact,) = driver.facts(NOW)
    assert isinstance(fact, StepSuspended)
    assert (fact.inputs, fact.until) == ({"question": Inline("ship it?"), "choices": Inline(["yes", "no"])}, None)
    assert driver.state.alarm() is None
    (request,) = driver.facts(end("w", result="yes"))
    assert request.inputs == {"x": Inline("yes")}  # type: ignore[union-attr]


def test_an_unanswered_question_takes_its_default_or_fails() -> None:
    for default, outcome in (("no", OK), (None, Outcome.TIMED_OUT)):
        driver = RunDriver(with_options(waiting(Kind.ASK, **ASK, default=Inline(default)), "w", timeout=30.0), NOW)
        assert driver.state.alarm() == 1_030.0
        over = ended(driver, clock(1_031.0))
        assert (over.outcome, over.finished_at, over.started_at) == (outcome, 1_030.0, 1_000.0)
        if default:
            assert (over.outputs, over.params) == ({"result": Inline("no")}, {"answered_by": "time-out"})
        else:
            assert over.error == ErrorInfo(type="Timeout", message="nobody answered in time")


def test_a_late_answer_changes_nothing() -> None:
    driver = RunDriver(with_options(waiting(Kind.ASK, **ASK), "w", timeout=30.0), NOW)
    driver(clock(1_030.0))
    before = driver.statuses
    assert driver(end("w", result="yes")) == []
    assert driver.statuses == before == {"w": "failed", "next": "skipped"}


@pytest.mark.parametrize("choices", [[], "yes", 3])
def test_a_question_without_choices_fails(choices: Any) -> None:
    driver = RunDriver(waiting(Kind.ASK, question=Inline("?"), choices=Inline(choices)), NOW)
    assert "the choices of a question must be a non-empty list" in str(driver.finished.error)


# --------------------------------------------------------------------------------------------------------- events, runs


def test_a_step_is_subscribed_until_its_event_arrives() -> None:
    driver = RunDriver(waiting(Kind.EVENT, type=Inline("com.acme.done")), NOW)
    assert driver.effects() == [SubscribeEvent("w", 1)]
    driver(end("w", result={"rows": 3}))
    assert driver.effects() == [UnsubscribeEvent("w", 1)]


def test_a_missing_event_fails_the_attempt_and_a_retry_subscribes_again() -> None:
    made = with_options(waiting(Kind.EVENT, type=Inline("t")), "w", timeout=30.0, retry=Retry(retries=1))
    driver = RunDriver(made, NOW)
    driver.effects()
    over = ended(driver, clock(1_030.0))
    assert over.error == ErrorInfo(type="Timeout", message="no event arrived in time")
    assert driver.effects() == [UnsubscribeEvent("w", 1), SubscribeEvent("w", 2)]
    assert driver.state.alarm() == 1_060.0


def test_the_type_of_an_event_must_be_text() -> None:
    driver = RunDriver(waiting(Kind.EVENT, type=Inline(["t"])), NOW)
    assert "the type of an event must be text, not a list" in str(driver.finished.error)


def test_a_child_run_is_started_and_its_result_used() -> None:
    driver = RunDriver(waiting(Kind.RUN, url=Inline("u")))
    (fact,) = driver.facts(NOW)
    assert isinstance(fact, StepSuspended)
    assert (fact.target, fact.version, fact.inputs) == ("other", 2, {"url": Inline("u")})
    assert driver.effects() == [StartChildRun("w", 1)]
    driver(end("w", result=1))
    assert driver.effects() == []


def test_a_finished_child_run_is_not_restarted_on_replay() -> None:
    for outcome in (OK, FAILED):
        driver = RunDriver(waiting(Kind.RUN), NOW)
        driver(end("w", outcome))
        assert StartChildRun("w", 1) not in driver.effects()


@pytest.mark.parametrize("last", [CANCEL, cancel("w"), clock(1_030.0), end("w", LOST)], ids=lambda fact: fact.ce_type)
def test_an_abandoned_child_run_is_cancelled(last: Fact) -> None:
    driver = RunDriver(with_options(waiting(Kind.RUN), "w", timeout=30.0), NOW)
    driver.effects()
    driver(last)
    assert CancelChildRun("w", 1) in driver.effects()


@pytest.mark.parametrize(("kind", "effect"), [(Kind.RUN, CancelChildRun), (Kind.EVENT, UnsubscribeEvent)])
@pytest.mark.parametrize("first", ["wait", "fence"])
def test_a_wait_started_during_a_cancel_is_ended(kind: Kind, effect: Any, first: str) -> None:
    """A replica unaware of the cancel wrote it, before or after the other replica's fence."""
    plan = machine.Plan(waiting(kind, **({"type": Inline("t")} if kind is Kind.EVENT else {})))
    stale, aware = (machine.decide(machine.fold(R, plan, facts)) for facts in ([NOW], [NOW, CANCEL]))
    both = [*stale, *aware] if first == "wait" else [*aware, *stale]
    state = machine.fold(R, plan, [NOW, CANCEL, *both])
    assert state.steps["w"].status == "cancelled"
    assert effect("w", 1) in state.outbox


def test_items_can_wait() -> None:
    made = with_options(
        plain(mapped_node(node("w", seconds=Inline([5, 10])), "seconds")), "w", kind=Kind.SLEEP, timeout=None
    )
    driver = RunDriver(made)
    assert driver(NOW) == ["step.w.expanded", "step.w[0].1.suspended", "step.w[1].1.suspended"]
    assert driver.state.alarm() == 1_005.0
    assert driver(clock(1_005.0)) == ["step.w[0].1.finished"]
    assert driver(clock(2_000.0)) == ["step.w[1].1.finished", "finished"]


# --------------------------------------------------------------------------------------------------------------- clock


def queued(**options: Any) -> RunDriver:
    return RunDriver(with_options(plain(node("a"), retry=Retry(retries=1)), "a", queue_timeout=60.0, **options), NOW)


def test_an_attempt_that_does_not_start_in_time_is_retried() -> None:
    driver = queued()
    assert driver.state.alarm() == 1_060.0
    assert driver(clock(1_059.0)) == []
    assert driver(clock(1_060.5)) == ["step.a.1.finished", "step.a.2.requested.default"]
    assert driver.state.alarm() == 1_120.5
    driver(clock(1_121.0))
    assert driver.finished.error == "step 'a' failed: QueueTimeout: it did not start within its queue timeout"


def test_a_started_attempt_does_not_time_out_in_the_queue() -> None:
    driver = queued()
    driver(AttemptStarted(run_id=R, key="a", attempt=1, executor="e", started_at=1_059.0))
    assert driver.state.alarm() is None
    assert driver(clock(2_000.0)) == []


def test_a_start_reported_after_the_timeout_still_counts() -> None:
    driver = queued()
    state = driver.state
    for fact in (clock(1_061.0), AttemptStarted(run_id=R, key="a", attempt=1, executor="e", started_at=1_059.0)):
        state = machine.evolve(state, fact)
    assert machine.decide(state) == []


def test_timers_may_be_late_duplicate_and_out_of_order() -> None:
    driver = RunDriver(waiting(Kind.SLEEP, seconds=Inline(60)), NOW)
    assert driver(clock(2_000.0))[0] == "step.w.1.finished"
    assert driver(clock(2_000.0), clock(1_060.0)) == []


def test_time_comes_only_from_facts_and_is_monotonic() -> None:
    driver = RunDriver(waiting(Kind.SLEEP, seconds=Inline(60)))
    driver.state = machine.evolve(driver.state, clock(3_000.0))
    (fact,) = driver.facts(NOW)
    assert isinstance(fact, StepSuspended)
    assert fact.until == 3_060.0


@pytest.mark.parametrize("reason", ["deadline", "cancel"])
def test_a_finished_run_has_no_timers(reason: str) -> None:
    made = waiting(Kind.SLEEP, seconds=Inline(60))
    driver = RunDriver(made, replace(NOW, deadline=1_050.0))
    assert driver.state.alarm() == 1_050.0
    driver(clock(1_050.0) if reason == "deadline" else CANCEL)
    assert driver.finished.outcome is (FAILED if reason == "deadline" else Outcome.CANCELLED)
    assert driver.state.alarm() is None
    assert driver(clock(5_000.0)) == []


def test_a_run_waiting_for_admission_finishes_at_its_deadline() -> None:
    request = RunRequested(run_id=R, project="p", pipeline="flow", version=1, deadline=50.0)
    driver = RunDriver(replace(plain(node("a")), max_active=1), request)
    assert driver(clock(50.0)) == ["step.a.1.finished", "finished"]
