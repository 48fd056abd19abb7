"""Attempts that need slots: held, granted, requested, and given back whatever happens."""

from __future__ import annotations

from dataclasses import replace

import pytest

from penstock_core.effects import Acquire, Admit, Kill, Leave, Release, Report
from penstock_core.facts import (
    AttemptFinished,
    AttemptHeld,
    AttemptRequested,
    Caller,
    ErrorInfo,
    Fact,
    Limit,
    Outcome,
    RunAdmitted,
    RunFinished,
)
from penstock_core.ir import Resources, Retry
from penstock_core.values import Inline, Output, Pick
from penstock_testkit.told import CANCEL, FAILED, LOST, OK, RUN, R, Told, clock, end, granted, having, mapped, node
from penstock_testkit.told import pipeline as plain

LIMITED = having(plain(node("a"), retry=Retry(retries=1)), "a", concurrency="gpu", concurrency_max=2, queue_timeout=60)


def test_an_attempt_is_held_until_it_has_its_slots() -> None:
    told = Told(LIMITED)
    assert told.facts(RUN) == [
        AttemptHeld(
            run_id=R, key="a", attempt=1, limits=(Limit(name="gpu", most=2),), priority=7, since=0.0, start_by=60.0
        )
    ]
    assert told.effects() == [Acquire("a", 1)]
    assert told.statuses == {"a": "held"}
    (request,) = told.facts(granted("a"))
    assert isinstance(request, AttemptRequested)
    assert (request.attempt, request.start_by) == (1, 60.0)
    assert told(granted("a")) == []
    assert told(end("a")) == ["finished"]
    assert told.effects() == [Release("a", 1)]


def test_a_pool_of_a_set_size_is_a_limit() -> None:
    told = Told(plain(node("train"), node("a")))
    told.state.sized_pools = frozenset({"gpu"})
    assert told(RUN) == ["step.train.1.held", "step.a.1.requested.default"]
    told = Told(having(plain(node("train")), "train", concurrency="licence"))
    told.state.sized_pools = frozenset({"gpu"})
    (held,) = told.facts(RUN)
    assert isinstance(held, AttemptHeld)
    assert held.limits == (Limit(name="licence"), Limit(name="pool:gpu"))


def test_every_attempt_is_held_anew() -> None:
    told = Told(LIMITED, RUN, granted("a"))
    assert told(end("a", FAILED)) == ["step.a.2.held"]
    assert told.effects() == [Release("a", 1), Acquire("a", 2)]


@pytest.mark.parametrize("before", [False, True], ids=["waiting", "granted"])
@pytest.mark.parametrize(
    "last",
    [CANCEL, clock(60.0), end("a", LOST), AttemptFinished(run_id=R, key="a", attempt=1, outcome=Outcome.CANCELLED)],
    ids=["cancel", "time-out", "lost", "cancelled"],
)
def test_slots_are_given_back_whatever_the_end(before: bool, last: Fact) -> None:
    told = Told(LIMITED, RUN, *([granted("a")] if before else []))
    told.effects()
    told(last)
    assert Release("a", 1) in told.effects()


def test_a_grant_that_comes_when_the_attempt_is_over_is_given_back() -> None:
    told = Told(LIMITED, RUN, CANCEL)
    told.effects()
    assert told(granted("a")) == []
    assert told.effects() == [Release("a", 1)]


def test_a_grant_for_an_earlier_attempt_is_given_back_and_changes_nothing() -> None:
    told = Told(LIMITED, RUN, end("a", LOST))
    told.effects()
    assert told(granted("a", 1)) == []
    assert told.effects() == [Release("a", 1)]
    assert told(granted("a", 3)) == []
    assert told.effects() == []
    assert told.statuses == {"a": "held"}


def test_a_held_attempt_that_gets_no_slot_in_time_is_tried_again() -> None:
    told = Told(LIMITED, RUN)
    assert told.state.alarm() == 60.0
    ended, _ = told.facts(clock(60.0))
    assert ended == AttemptFinished(
        run_id=R,
        key="a",
        attempt=1,
        outcome=Outcome.TIMED_OUT,
        error=ErrorInfo(
            type="QueueTimeout", message="it did not start within its queue time-out: its limits had no free slot"
        ),
        finished_at=60.0,
    )
    assert Kill("a", 1) not in told.effects(), "no process was asked for"
    assert told.state.alarm() == 120.0


def test_an_attempt_that_a_replica_without_limits_requested_is_as_good() -> None:
    told = Told(LIMITED, RUN)
    request = Told(plain(node("a"))).facts(RUN)
    assert told(*request) == []
    assert told.statuses == {"a": "queued"}


def test_items_are_held_one_by_one() -> None:
    made = plain(mapped(node("a", x=Inline([1, 2, 3])), "x", window=2))
    told = Told(having(made, "a", concurrency="gpu"))
    assert told(RUN) == ["step.a.expanded", "step.a[0].1.held", "step.a[1].1.held"]
    assert told(granted("a[1]")) == ["step.a[1].1.requested.default"]
    assert told(end("a[1]")) == ["step.a[2].1.held"]


def test_what_cannot_run_takes_no_slot_and_fails() -> None:
    made = plain(node("b"), node("a", x=Pick(Output("b"), (7,))))
    told = Told(having(made, "a", concurrency="gpu"), RUN)
    assert told(end("b", result=[1])) == ["step.a.skipped", "finished"]
    assert told.over.outcome is FAILED


# -------------------------------------------------------------------------------------------------- admission, memory


def test_a_run_that_is_not_admitted_waits() -> None:
    told = Told(replace(plain(node("a")), max_active=1))
    assert told(RUN) == []
    assert told.effects() == [Admit()]
    assert told(RunAdmitted(run_id=R)) == ["step.a.1.requested.default"]
    told(end("a"))
    assert told.effects() == [Leave()]


def test_a_run_that_was_admitted_is_not_admitted_again_when_its_log_is_read() -> None:
    told = Told(replace(plain(node("a")), max_active=1), RUN, RunAdmitted(run_id=R))
    assert told.effects() == []


def test_a_run_that_waits_can_be_cancelled_and_leaves() -> None:
    told = Told(replace(plain(node("a")), max_active=1), RUN)
    assert told(CANCEL) == ["step.a.1.finished", "finished"]
    assert told.effects() == [Leave()]


def test_a_run_that_is_skipped_is_over() -> None:
    told = Told(replace(plain(node("a")), max_active=1), RUN)
    assert told(RunFinished(run_id=R, outcome=Outcome.SKIPPED, error="another run is under way")) == []
    assert told.effects() == [Leave()]


def test_the_end_of_a_run_is_told_to_its_caller() -> None:
    told = Told(plain(node("a")), replace(RUN, caller=Caller(run_id="r0", key="sub", attempt=1)))
    assert Report() not in told.effects()
    told(end("a"))
    assert told.effects() == [Report()]


def out_of_memory(attempt: int) -> AttemptFinished:
    error = ErrorInfo(type="OutOfMemory", message="killed")
    return AttemptFinished(run_id=R, key="a", attempt=attempt, outcome=FAILED, error=error)


@pytest.mark.parametrize(("growth", "third"), [(1.0, 100), (2.0, 400), (1.5, 225), (100.0, 1_000_000)])
def test_an_attempt_after_one_that_ran_out_of_memory_gets_more(growth: float, third: int) -> None:
    made = plain(node("a"), retry=Retry(retries=10_000))
    told = Told(having(made, "a", resources=Resources(memory=100, memory_growth=growth)), RUN)
    told(out_of_memory(1))
    told(end("a", FAILED, attempt=2))
    (request,) = told.facts(out_of_memory(3))
    assert isinstance(request, AttemptRequested)
    assert request.resources.memory == third


def test_memory_grows_up_to_a_bound_however_often_it_is_short() -> None:
    made = plain(node("a"), retry=Retry(retries=10_000))
    told = Told(having(made, "a", resources=Resources(memory=100, memory_growth=100.0)), RUN)
    for attempt in range(1, 399):
        told(out_of_memory(attempt))
    (request,) = told.facts(out_of_memory(399))
    assert isinstance(request, AttemptRequested)
    assert request.resources.memory == 1 << 50
    assert told(end("a", OK, attempt=400)) == ["finished"]
