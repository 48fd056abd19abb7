"""Attempts that need slots: queued, granted, requested, and released in every case."""

from __future__ import annotations

from dataclasses import replace

import pytest

from penstock_core.deployments.active_runs import DeploymentLimit
from penstock_core.facts import (
    AttemptFinished,
    AttemptQueued,
    AttemptRequested,
    Caller,
    ErrorInfo,
    Fact,
    Limit,
    Outcome,
    RunAdmitted,
    RunFinished,
    StepCancelRequested,
    StepReused,
)
from penstock_core.pipeline.ir import Overlap, Phase, Resources, Retry
from penstock_core.pipeline.values import Inline, Output, Pick
from penstock_core.run import machine
from penstock_core.run.effects import AcquireSlots, AdmitRun, KillAttempt, NotifyCaller, ReleaseRun, ReleaseSlots
from penstock_core.run.explain import explain_one
from penstock_testkit.run_driver import (
    CANCEL,
    FAILED,
    LOST,
    OK,
    RUN,
    R,
    RunDriver,
    clock,
    end,
    granted,
    mapped_node,
    node,
    with_options,
)
from penstock_testkit.run_driver import pipeline as plain

LIMITED = with_options(
    plain(node("a"), retry=Retry(retries=1)), "a", concurrency="gpu", concurrency_max=2, queue_timeout=60
)


def test_an_attempt_is_queued_until_it_has_its_slots() -> None:
    driver = RunDriver(LIMITED)
    assert driver.facts(RUN) == [
        AttemptQueued(
            run_id=R, key="a", attempt=1, limits=(Limit(name="p/gpu", most=2),), priority=7, since=0.0, start_by=60.0
        )
    ]
    assert driver.effects() == [AcquireSlots("a", 1)]
    assert driver.statuses == {"a": "queued_for_limit"}
    (request,) = driver.facts(granted("a"))
    assert isinstance(request, AttemptRequested)
    assert (request.attempt, request.start_by) == (1, 60.0)
    assert driver(granted("a")) == []
    assert driver(end("a")) == ["finished"]
    assert driver.effects() == [ReleaseSlots("a", 1)]


def test_a_pool_with_a_size_is_a_limit() -> None:
    driver = RunDriver(plain(node("train"), node("a")))
    limited = replace(RUN, limited_pools=("gpu",))
    assert driver(limited) == ["step.train.1.queued", "step.a.1.requested.default"]
    driver = RunDriver(with_options(plain(node("train")), "train", concurrency="licence"))
    (queued,) = driver.facts(limited)
    assert isinstance(queued, AttemptQueued)
    assert queued.limits == (Limit(name="p/licence"), Limit(name="pool:gpu"))


def test_every_attempt_is_queued_separately() -> None:
    driver = RunDriver(LIMITED, RUN, granted("a"))
    assert driver(end("a", FAILED)) == ["step.a.2.queued"]
    assert driver.effects() == [ReleaseSlots("a", 1), AcquireSlots("a", 2)]


@pytest.mark.parametrize("before", [False, True], ids=["waiting", "granted"])
@pytest.mark.parametrize(
    "last",
    [CANCEL, clock(60.0), end("a", LOST), AttemptFinished(run_id=R, key="a", attempt=1, outcome=Outcome.CANCELLED)],
    ids=["cancel", "time-out", "lost", "cancelled"],
)
def test_slots_are_released_after_any_outcome(before: bool, last: Fact) -> None:
    driver = RunDriver(LIMITED, RUN, *([granted("a")] if before else []))
    driver.effects()
    driver(last)
    assert ReleaseSlots("a", 1) in driver.effects()


def test_a_grant_for_a_finished_attempt_is_released() -> None:
    driver = RunDriver(LIMITED, RUN, CANCEL)
    driver.effects()
    assert driver(granted("a")) == []
    assert driver.effects() == [ReleaseSlots("a", 1)]


def test_a_grant_for_an_earlier_attempt_is_released_without_effect() -> None:
    driver = RunDriver(LIMITED, RUN, end("a", LOST))
    driver.effects()
    assert driver(granted("a", 1)) == []
    assert driver.effects() == [ReleaseSlots("a", 1)]
    assert driver(granted("a", 3)) == []
    assert driver.effects() == []
    assert driver.statuses == {"a": "queued_for_limit"}


def test_a_queued_attempt_without_a_slot_in_time_is_retried() -> None:
    driver = RunDriver(LIMITED, RUN)
    assert driver.state.alarm() == 60.0
    ended, _ = driver.facts(clock(60.0))
    assert ended == AttemptFinished(
        run_id=R,
        key="a",
        attempt=1,
        outcome=Outcome.TIMED_OUT,
        error=ErrorInfo(
            type="QueueTimeout", message="it did not start within its queue timeout: no slot of its limits became free"
        ),
        finished_at=60.0,
    )
    assert KillAttempt("a", 1) not in driver.effects(), "no process was asked for"
    assert driver.state.alarm() == 120.0


def test_an_attempt_requested_by_a_replica_without_limits_is_accepted() -> None:
    driver = RunDriver(LIMITED, RUN)
    request = RunDriver(plain(node("a"))).facts(RUN)
    assert driver(*request) == []
    assert driver.statuses == {"a": "queued"}


def test_items_are_queued_individually() -> None:
    made = plain(mapped_node(node("a", x=Inline([1, 2, 3])), "x", window=2))
    driver = RunDriver(with_options(made, "a", concurrency="gpu"))
    assert driver(RUN) == ["step.a.expanded", "step.a[0].1.queued", "step.a[1].1.queued"]
    assert driver(granted("a[1]")) == ["step.a[1].1.requested.default"]
    assert driver(end("a[1]")) == ["step.a[2].1.queued"]


def test_an_attempt_that_cannot_run_fails_without_a_slot() -> None:
    made = plain(node("b"), node("a", x=Pick(Output("b"), (7,))))
    driver = RunDriver(with_options(made, "a", concurrency="gpu"), RUN)
    assert driver(end("b", result=[1])) == ["step.a.skipped", "finished"]
    assert driver.finished.outcome is FAILED


# -------------------------------------------------------------------------------------------------- admission, memory


def test_a_run_that_is_not_admitted_waits() -> None:
    driver = RunDriver(replace(plain(node("a")), max_active=1))
    assert driver(RUN) == []
    assert driver.effects() == [AdmitRun()]
    assert driver(RunAdmitted(run_id=R)) == ["step.a.1.requested.default"]
    driver(end("a"))
    assert driver.effects() == [ReleaseRun()]


def test_a_run_of_a_limited_deployment_waits_for_its_admission() -> None:
    asked = replace(RUN, deployment_limit=DeploymentLimit(deployment="nightly", most=2))
    driver = RunDriver(plain(node("a")))
    assert driver(asked) == []
    assert driver.effects() == [AdmitRun()]
    reason = explain_one(driver.state, "a", 0.0)
    assert reason is not None
    assert reason.sentence == "the run is queued: deployment 'nightly' may have 2 active runs (max_active_runs)"
    assert driver(RunAdmitted(run_id=R)) == ["step.a.1.requested.default"]
    driver(end("a"))
    assert driver.effects() == [ReleaseRun()]


def test_an_admitted_run_is_not_readmitted_on_replay() -> None:
    driver = RunDriver(replace(plain(node("a")), max_active=1), RUN, RunAdmitted(run_id=R))
    assert driver.effects() == []


def test_a_queued_run_can_be_cancelled_and_leaves_the_queue() -> None:
    driver = RunDriver(replace(plain(node("a")), max_active=1), RUN)
    assert driver(CANCEL) == ["step.a.1.finished", "finished"]
    assert driver.effects() == [ReleaseRun()]


@pytest.mark.parametrize("facts", [(RUN, CANCEL), (CANCEL, RUN)])
def test_a_run_that_is_cancelled_before_it_is_admitted_does_not_request_admission(facts: tuple[Fact, ...]) -> None:
    """Its pipeline could skip it while its closing steps are in flight."""
    made = plain(node("a"), replace(node("b"), phase=Phase.ON_EXIT))
    driver = RunDriver(replace(made, max_active=1, overlap=Overlap.SKIP))
    for fact in facts:
        driver.state = machine.evolve(driver.state, fact)
    assert driver() == ["step.a.1.finished", "step.b.1.requested.default"]
    assert driver.effects() == []


def test_a_run_whose_steps_are_all_reused_does_not_request_admission() -> None:
    made = plain(node("a"), replace(node("b"), phase=Phase.ON_EXIT))
    driver = RunDriver(replace(made, max_active=1), StepReused(run_id=R, key="a", from_run="r0"))
    assert driver(RUN) == ["step.b.1.requested.default"]
    assert driver.effects() == []


def test_a_skipped_run_is_finished() -> None:
    driver = RunDriver(replace(plain(node("a")), max_active=1), RUN)
    assert driver(RunFinished(run_id=R, outcome=Outcome.SKIPPED, error="another run is under way")) == []
    frontier = dict(driver.state.frontier)
    assert driver(StepCancelRequested(run_id=R, key="a"), CANCEL) == []
    assert driver.state.frontier == frontier and driver.state.stop is None
    assert driver.effects() == [ReleaseRun()]


def test_the_callers_run_is_notified_of_the_end_of_its_child() -> None:
    driver = RunDriver(plain(node("a")), replace(RUN, caller=Caller(run_id="r0", key="sub", attempt=1)))
    assert NotifyCaller() not in driver.effects()
    driver(end("a"))
    assert driver.effects() == [NotifyCaller()]


def out_of_memory(attempt: int) -> AttemptFinished:
    error = ErrorInfo(type="OutOfMemory", message="killed")
    return AttemptFinished(run_id=R, key="a", attempt=attempt, outcome=FAILED, error=error)


@pytest.mark.parametrize(("growth", "third"), [(1.0, 100), (2.0, 400), (1.5, 225), (100.0, 1_000_000)])
def test_an_attempt_after_one_that_ran_out_of_memory_gets_more(growth: float, third: int) -> None:
    made = plain(node("a"), retry=Retry(retries=10_000))
    driver = RunDriver(with_options(made, "a", resources=Resources(memory=100, memory_growth=growth)), RUN)
    driver(out_of_memory(1))
    driver(end("a", FAILED, attempt=2))
    (request,) = driver.facts(out_of_memory(3))
    assert isinstance(request, AttemptRequested)
    assert request.resources.memory == third


def test_memory_growth_is_bounded() -> None:
    made = plain(node("a"), retry=Retry(retries=10_000))
    driver = RunDriver(with_options(made, "a", resources=Resources(memory=100, memory_growth=100.0)), RUN)
    for attempt in range(1, 399):
        driver(out_of_memory(attempt))
    (request,) = driver.facts(out_of_memory(399))
    assert isinstance(request, AttemptRequested)
    assert request.resources.memory == 1 << 50
    assert driver(end("a", OK, attempt=400)) == ["finished"]
