"""Runs driven fact by fact: the decisions after each fact."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from penstock_core.facts import (
    AttemptFinished,
    AttemptRequested,
    AttemptStarted,
    ErrorInfo,
    Outcome,
    RunFinished,
    StepSkipped,
)
from penstock_core.pipeline import values
from penstock_core.pipeline.ir import Pipeline, Port, Retry
from penstock_core.pipeline.tagged import NoSuchPartError
from penstock_core.pipeline.values import (
    BoundItems,
    Collected,
    CollectedRef,
    Element,
    Inline,
    Items,
    Output,
    Param,
    ResultOf,
    ResultRef,
)
from penstock_core.run import machine, value_resolution
from penstock_core.run.machine import Status
from penstock_testkit.run_driver import CANCEL, FAILED, LOST, OK, RUN, R, RunDriver, end, node, pipeline

CHAIN = pipeline(node("load", url=Param("url")), node("train", data=Output("load")), model=Output("train"))
DIAMOND = pipeline(node("a"), node("b", "a"), node("c", "a"), node("d", "b", "c"))


def test_a_finished_step_starts_the_next() -> None:
    driver = RunDriver(CHAIN)
    assert driver(RUN) == ["step.load.1.requested.default"]
    assert driver() == []
    assert driver(end("load")) == ["step.train.1.requested.gpu"]
    (over,) = driver.facts(end("train"))
    assert over == RunFinished(run_id=R, outcome=OK, outputs={"model": Inline("train!")})
    assert driver(end("train")) == []


def test_nothing_is_decided_before_the_run_request() -> None:
    driver = RunDriver(CHAIN)
    assert driver(end("load"), CANCEL) == []


def test_an_attempt_request_contains_all_that_an_executor_needs() -> None:
    driver = RunDriver(CHAIN)
    driver(RUN)
    (request,) = driver.facts(end("load", result=[1, 2]))
    assert request == AttemptRequested(
        run_id=R,
        key="train",
        attempt=1,
        pool="gpu",
        project="p",
        pipeline="flow",
        version=3,
        entrypoint="m:train",
        inputs={"data": Inline([1, 2])},
        outputs=(Port(name="result"),),
        timeout=9.0,
        env={"A": "1"},
        secrets=("key",),
        priority=7,
    )


def test_branches_run_side_by_side_and_join() -> None:
    driver = RunDriver(DIAMOND)
    driver(RUN)
    assert driver(end("a")) == ["step.b.1.requested.default", "step.c.1.requested.default"]
    assert driver(end("c")) == []
    assert driver(end("b")) == ["step.d.1.requested.default"]


def test_a_run_without_steps_finishes_at_once() -> None:
    assert RunDriver(pipeline()).facts(RUN) == [RunFinished(run_id=R, outcome=OK)]


def test_a_failure_skips_dependents_with_the_reason_and_the_rest_continues() -> None:
    driver = RunDriver(pipeline(node("a"), node("b", "a"), node("c", "b"), node("x"), node("y", "x")))
    driver(RUN)
    assert driver.facts(end("a", FAILED)) == [
        StepSkipped(run_id=R, key="b", reason="step 'a' failed", cause="a"),
        StepSkipped(run_id=R, key="c", reason="step 'b' was skipped", cause="b"),
    ]
    assert driver(end("x")) == ["step.y.1.requested.default"]
    (over,) = driver.facts(end("y"))
    assert over == RunFinished(run_id=R, outcome=FAILED, error="step 'a' failed: ValueError: no rows")
    assert driver.statuses == {"a": "failed", "b": "skipped", "c": "skipped", "x": "succeeded", "y": "succeeded"}


def test_the_step_that_failed_first_is_named() -> None:
    driver = RunDriver(pipeline(node("a"), node("b")))
    driver(RUN)
    driver(end("b", FAILED))
    (over,) = driver.facts(end("a", FAILED))
    assert isinstance(over, RunFinished)
    assert over.error == "step 'b' failed: ValueError: no rows"


def test_an_overlong_error_is_truncated() -> None:
    driver = RunDriver(pipeline(node("a")))
    driver(RUN)
    error = ErrorInfo(type="ValueError", message="x" * 10_000)
    (over,) = driver.facts(AttemptFinished(run_id=R, key="a", attempt=1, outcome=FAILED, error=error))
    assert isinstance(over, RunFinished)
    assert over.error is not None
    assert len(over.error) == 2000


def test_a_failed_attempt_is_retried_after_the_delay() -> None:
    driver = RunDriver(pipeline(node("a"), retry=Retry(retries=2, delay=10, backoff=2)))
    driver(RUN)
    (second,) = driver.facts(end("a", FAILED, at=100.0))
    (third,) = driver.facts(end("a", Outcome.TIMED_OUT, attempt=2, at=200.0))
    assert [(fact.attempt, fact.not_before) for fact in (second, third) if isinstance(fact, AttemptRequested)] == [
        (2, 110.0),
        (3, 220.0),
    ]
    assert driver(end("a", FAILED, attempt=3)) == ["finished"]


def test_lost_attempts_are_retried_at_once_without_using_a_retry() -> None:
    driver = RunDriver(pipeline(node("a"), retry=Retry(retries=1, delay=10)))
    driver(RUN)
    (again,) = driver.facts(end("a", LOST))
    assert isinstance(again, AttemptRequested)
    assert again.not_before is None
    assert driver(end("a", LOST, attempt=2)) == ["step.a.3.requested.default"]
    assert driver(end("a", FAILED, attempt=3)) == ["step.a.4.requested.default"]
    assert driver(end("a", FAILED, attempt=4)) == ["finished"]
    assert (driver.state.steps["a"].losses, driver.state.steps["a"].failures) == (2, 2)


def test_a_cached_end_is_a_success() -> None:
    driver = RunDriver(CHAIN)
    driver(RUN)
    assert driver(end("load", Outcome.CACHED)) == ["step.train.1.requested.gpu"]
    assert driver.statuses["load"] == "cached"


def test_a_late_end_of_an_earlier_attempt_changes_nothing() -> None:
    driver = RunDriver(pipeline(node("a"), retry=Retry(retries=1)))
    driver(RUN, end("a", LOST))
    assert driver(end("a", OK)) == []
    assert driver.statuses == {"a": "queued"}


def test_cancel_ends_attempts_in_flight_and_prevents_others() -> None:
    driver = RunDriver(pipeline(node("a"), node("b", "a"), node("x"), retry=Retry(retries=3)))
    driver(RUN)
    driver(end("x"), AttemptStarted(run_id=R, key="a", attempt=1, executor="e", started_at=5.0))
    why = ErrorInfo(type="Cancelled", message="cancelled by ada: wrong data")
    assert driver.facts(CANCEL) == [
        AttemptFinished(run_id=R, key="a", attempt=1, outcome=Outcome.CANCELLED, error=why),
        AttemptFinished(run_id=R, key="b", attempt=1, outcome=Outcome.CANCELLED, error=why),
        RunFinished(run_id=R, outcome=Outcome.CANCELLED, error="cancelled by ada: wrong data"),
    ]
    assert driver.statuses == {"a": "cancelled", "b": "cancelled", "x": "succeeded"}
    a, b = driver.state.steps["a"], driver.state.steps["b"]
    assert (a.attempt, a.reason, a.started_at, a.executor) == (1, "cancelled by ada: wrong data", 5.0, "e")
    assert (b.attempt, b.reason, b.started_at) == (0, "cancelled by ada: wrong data", 0.0)


def test_cancel_while_a_step_is_retrying() -> None:
    state = machine.fold(R, machine.Plan(pipeline(node("a"), retry=Retry(retries=3))), [RUN])
    (request,) = machine.decide(state)
    for fact in (request, end("a", FAILED), CANCEL):
        state = machine.evolve(state, fact)
    assert [fact.tail for fact in machine.decide(state)] == ["step.a.2.finished"]


def test_a_request_by_a_replica_unaware_of_the_cancel_is_fenced() -> None:
    """Both replicas decide at the same moment; both reach the same state in any log order."""
    plan = machine.Plan(pipeline(node("a")))
    stale = machine.decide(machine.fold(R, plan, [RUN]))
    aware = machine.decide(machine.fold(R, plan, [RUN, CANCEL]))
    for log in ([RUN, CANCEL, *stale, *aware], [RUN, CANCEL, *aware, *stale], [RUN, CANCEL, *aware]):
        state = machine.fold(R, plan, log)
        assert state.steps["a"].status is Status.CANCELLED
        assert [fact.tail for fact in machine.decide(state)] == ["finished"]


def test_a_result_before_the_fence_counts() -> None:
    driver = RunDriver(CHAIN)
    driver(RUN, end("load"))
    assert driver(end("train"), CANCEL) == ["finished"]
    assert driver.state.finished is not None
    assert driver.state.finished.outcome is OK


def test_a_cancel_after_a_failure_still_cancels_the_run() -> None:
    driver = RunDriver(pipeline(node("a"), node("b")))
    driver(RUN, end("a", FAILED))
    *_, over = driver.facts(CANCEL)
    assert isinstance(over, RunFinished)
    assert over.outcome is Outcome.CANCELLED


def test_a_spuriously_cancelled_attempt_is_not_a_success() -> None:
    driver = RunDriver(CHAIN)
    driver(RUN)
    skipped, over = driver.facts(end("load", Outcome.CANCELLED))
    assert skipped == StepSkipped(run_id=R, key="train", reason="step 'load' was cancelled", cause="load")
    assert over == RunFinished(run_id=R, outcome=Outcome.CANCELLED, error="step 'load' was cancelled: no rows")


def test_a_step_skipped_without_a_cause_is_not_a_success() -> None:
    """As an unreadable message on the subject of a skip counts as one."""
    driver = RunDriver(pipeline(node("a"), node("b", "a")))
    driver(RUN, StepSkipped(run_id=R, key="b", reason="unreadable"))
    (over,) = driver.facts(end("a"))
    assert over == RunFinished(run_id=R, outcome=FAILED, error="step 'b' was skipped: unreadable")


def test_an_end_may_precede_its_request() -> None:
    driver = RunDriver(CHAIN)
    driver.state = machine.evolve(driver.state, end("load"))
    assert driver(RUN) == ["step.load.1.requested.default", "step.train.1.requested.gpu"]


def test_an_unreadable_end_on_a_fences_subject_does_not_stop_the_cancel() -> None:
    driver = RunDriver(CHAIN)
    spoilt = end("train", LOST)
    assert driver(RUN, CANCEL, spoilt)[-2:] == ["step.train.2.finished", "finished"]


def test_a_new_attempt_starts_with_clean_state() -> None:
    driver = RunDriver(pipeline(node("a"), retry=Retry(retries=1)))
    driver(RUN)
    driver(AttemptStarted(run_id=R, key="a", attempt=1, executor="e1", started_at=5.0), end("a", FAILED, at=8.0))
    step = driver.state.steps["a"]
    assert (step.attempt, step.executor, step.started_at, step.finished_at) == (2, "", 0.0, 0.0)
    assert step.error is not None, "the error of the last attempt stays for people to read"


def fan_in(width: int) -> Pipeline:
    return pipeline(
        *(node(f"s-{n}") for n in range(width)),
        node("join", items=BoundItems(tuple(Output(f"s-{n}") for n in range(width)))),
        all=BoundItems(tuple(Output(f"s-{n}") for n in range(width))),
    )


def joined(pipeline: Pipeline, results: Sequence[str]) -> tuple[values.Value, values.Value]:
    """The input of `join` and the run's output when steps `s-n` give these results."""
    driver = RunDriver(pipeline)
    driver(RUN)
    *_, request = [fact for n, result in enumerate(results) for fact in driver.facts(end(f"s-{n}", result=result))]
    assert isinstance(request, AttemptRequested)
    (over,) = driver.facts(end("join"))
    assert isinstance(over, RunFinished)
    return request.inputs["items"], over.outputs["all"]


def test_small_results_are_passed_inline() -> None:
    assert joined(fan_in(2), ["a", "b"]) == (Items((Inline("a"), Inline("b"))),) * 2


def test_results_over_the_request_limit_are_passed_by_reference() -> None:
    big = "x" * (values.INLINE_LIMIT - 2)
    for value in joined(fan_in(5), [big] * 5):
        assert value == Items(tuple(ResultOf(ResultRef(key=f"s-{n}", attempt=1, output="result")) for n in range(5)))


@pytest.mark.parametrize(("part", "count"), [("a", 3), (3, 3), (-4, 3), (0, 0)])
def test_a_list_that_is_named_by_reference_has_no_other_parts_than_its_elements(part: int | str, count: int) -> None:
    """As for a list at hand, so that a pipeline with such an output fails however large the results are."""
    named = Collected(CollectedRef(key="each", count=count, output="result"))
    with pytest.raises(NoSuchPartError, match=f"a list of {count} has no element"):
        value_resolution.pick(named, (part,))
    if count:
        assert value_resolution.pick(named, (-1, "x")) == Element(named, (-1, "x"))


def test_the_request_limit_counts_each_read_of_a_result() -> None:
    """Ten inputs that read the same value are ten copies in the request."""
    big = "x" * (values.INLINE_LIMIT - 2)
    copies = BoundItems((Output("s-0"),) * 10)
    ten = pipeline(node("s-0"), node("join", items=copies), all=copies)
    for value in joined(ten, [big]):
        assert value == Items((ResultOf(ResultRef(key="s-0", attempt=1, output="result")),) * 10)


def test_artifacts_are_never_passed_by_reference_to_the_log() -> None:
    stored = values.Stored(values.ArtifactRef(sha256="a" * 64, size=1, media_type="", format="npy"))
    state = machine.fold(R, machine.Plan(fan_in(1)), [RUN])
    for fact in machine.decide(state):
        state = machine.evolve(state, fact)
    made = AttemptFinished(run_id=R, key="s-0", attempt=1, outcome=OK, outputs={"result": stored})
    state = machine.evolve(state, made)
    assert value_resolution.resolve(state, Output("s-0"), by_reference=True) == stored


@pytest.mark.parametrize(
    ("binding", "value"),
    [
        (Param("url"), Inline("u")),
        (Param("unknown"), Inline(None)),
        (Inline({"a": 1}), Inline({"a": 1})),
        (Output("load"), Inline("load!")),
        (Output("load", "unknown"), Inline(None)),
        (BoundItems((Param("url"), BoundItems(()))), Items((Inline("u"), Items(())))),
        (values.BoundFields({"x": Output("load")}), values.Fields({"x": Inline("load!")})),
    ],
)
def test_bindings_are_resolved(binding: values.Binding, value: values.Value) -> None:
    driver = RunDriver(CHAIN)
    driver(RUN, end("load"))
    assert value_resolution.resolve(driver.state, binding) == value
