"""Overlap policies: runs beyond the limit of a pipeline."""

from __future__ import annotations

import pytest

from penstock_core.deployments.active_runs import DeploymentLimit
from penstock_core.facts import RunRequested
from penstock_core.limits import overlap, slot_ledger
from penstock_core.limits.slot_ledger import LimitsLedger, Notice, SlotKey, Waiter
from penstock_core.pipeline.ir import Overlap, Pipeline


def slot_key(n: int) -> SlotKey:
    return (f"run{n}", "", 0)


Known = tuple[str, int, Overlap]


def request(n: int, pipeline: Known | None, deployment: Known | None) -> tuple[Waiter, list[Overlap]]:
    """The waiter of a run whose pipeline and deployment limit their active runs, and its policies."""
    asked = RunRequested(
        run_id=f"run{n}",
        project="default",
        pipeline=pipeline[0] if pipeline else "p",
        version=1,
        deployment_limit=DeploymentLimit(deployment=deployment[0], most=deployment[1], overlap=deployment[2])
        if deployment
        else None,
    )
    limited = {"max_active": pipeline[1], "overlap": pipeline[2]} if pipeline else {}
    limits = overlap.limits_of(asked, Pipeline(name=asked.pipeline, **limited))
    return overlap.run_waiter(asked.run_id, limits, 0, float(n)), [one.overlap for one in limits]


def come(ledger: LimitsLedger, n: int, policy: Overlap, most: int = 1, pipeline: str = "p") -> str | None:
    return arrive(ledger, n, (pipeline, most, policy), None)


def arrive(ledger: LimitsLedger, n: int, pipeline: Known | None, deployment: Known | None) -> str | None:
    why = overlap.admit(ledger, *request(n, pipeline, deployment))
    slot_ledger.serve(ledger, {}, float(n))
    return why


def go(ledger: LimitsLedger, n: int) -> None:
    slot_ledger.release(ledger, slot_key(n))
    slot_ledger.serve(ledger, {}, 100.0)


def cancel_requested(ledger: LimitsLedger) -> set[SlotKey]:
    return {one for one, notice in ledger.pending_notices if notice is Notice.CANCELLED}


@pytest.mark.parametrize("policy", Overlap)
def test_runs_up_to_the_limit_are_admitted_at_once(policy: Overlap) -> None:
    ledger = LimitsLedger()
    assert [come(ledger, n, policy, most=3) for n in range(3)] == [None] * 3
    assert len(ledger.holders) == 3 and not cancel_requested(ledger)


@pytest.mark.parametrize("policy", Overlap)
def test_each_pipeline_has_its_own_limit(policy: Overlap) -> None:
    ledger = LimitsLedger()
    come(ledger, 0, policy)
    come(ledger, 1, policy, pipeline="q")
    assert len(ledger.holders) == 2 and not cancel_requested(ledger)


@pytest.mark.parametrize("policy", Overlap)
def test_a_known_run_keeps_its_state(policy: Overlap) -> None:
    ledger = LimitsLedger()
    come(ledger, 0, policy)
    come(ledger, 1, Overlap.QUEUE)
    before = ledger.copy()
    assert come(ledger, 0, policy) is None
    assert come(ledger, 1, policy) is None
    assert ledger == before


def test_the_queue_policy() -> None:
    ledger = LimitsLedger()
    for n in range(3):
        assert come(ledger, n, Overlap.QUEUE) is None
    go(ledger, 0)
    assert set(ledger.holders) == {slot_key(1)}
    go(ledger, 2)  # cancelled while it waits
    go(ledger, 1)
    assert ledger == LimitsLedger()


def test_the_skip_policy() -> None:
    ledger = LimitsLedger()
    come(ledger, 0, Overlap.SKIP)
    why = come(ledger, 1, Overlap.SKIP)
    assert why is not None and "another run of the pipeline is active" in why and "overlap=skip" in why
    go(ledger, 0)
    assert come(ledger, 2, Overlap.SKIP) is None


def test_the_buffer_one_policy() -> None:
    ledger = LimitsLedger()
    assert come(ledger, 0, Overlap.BUFFER_ONE, most=2) is None
    assert come(ledger, 1, Overlap.BUFFER_ONE, most=2) is None
    assert come(ledger, 2, Overlap.BUFFER_ONE, most=2) is None
    why = come(ledger, 3, Overlap.BUFFER_ONE, most=2)
    assert why is not None and "2 runs" in why and "another run is queued" in why
    go(ledger, 0)
    assert set(ledger.holders) == {slot_key(1), slot_key(2)}


def test_cancel_previous_waits_until_the_oldest_is_finished() -> None:
    ledger = LimitsLedger()
    for n in range(3):
        come(ledger, n, Overlap.CANCEL_PREVIOUS, most=2)
    assert cancel_requested(ledger) == {slot_key(0)}
    assert set(ledger.holders) == {slot_key(0), slot_key(1)} and set(ledger.waiters) == {slot_key(2)}
    go(ledger, 0)
    assert set(ledger.holders) == {slot_key(1), slot_key(2)} and not cancel_requested(ledger)


def test_the_newest_run_is_decided_by_request_time_not_arrival() -> None:
    for order in ((0, 2, 1), (2, 0, 1), (2, 1, 0), (1, 0, 2)):
        ledger = LimitsLedger()
        for n in order:
            come(ledger, n, Overlap.CANCEL_PREVIOUS)
        assert cancel_requested(ledger) == {slot_key(0), slot_key(1)}, order
        go(ledger, 0)
        go(ledger, 1)
        assert set(ledger.holders) == {slot_key(2)}, order


def test_cancel_previous_also_cancels_waiting_runs() -> None:
    ledger = LimitsLedger()
    for n in range(4):
        come(ledger, n, Overlap.CANCEL_PREVIOUS)
    assert cancel_requested(ledger) == {slot_key(0), slot_key(1), slot_key(2)}
    go(ledger, 0)  # runs 1 and 2 are not finished yet, but are not admitted any more
    assert set(ledger.holders) == {slot_key(3)}
    go(ledger, 1)
    go(ledger, 2)
    assert set(ledger.holders) == {slot_key(3)} and not ledger.waiters


@pytest.mark.parametrize("most", [1, 2])
def test_an_older_run_that_is_seen_after_newer_ones_finished_is_cancelled(most: int) -> None:
    ledger = LimitsLedger()
    for n in range(10, 10 + most):
        come(ledger, n, Overlap.CANCEL_PREVIOUS, most=most)
        go(ledger, n)
    come(ledger, 1, Overlap.CANCEL_PREVIOUS, most=most)
    assert cancel_requested(ledger) == {slot_key(1)}
    assert slot_key(1) not in ledger.holders
    come(ledger, 20, Overlap.CANCEL_PREVIOUS, most=most)
    assert slot_key(20) in ledger.holders


# --------------------------------------------------------------------------------------------- limits of a deployment


def test_a_run_needs_a_slot_of_its_pipeline_and_of_its_deployment() -> None:
    ledger = LimitsLedger()
    two = ("p", 2, Overlap.QUEUE)
    assert arrive(ledger, 0, two, ("a", 1, Overlap.QUEUE)) is None
    assert arrive(ledger, 1, two, ("a", 1, Overlap.QUEUE)) is None  # waits for its deployment
    assert arrive(ledger, 2, two, ("b", 1, Overlap.QUEUE)) is None
    assert arrive(ledger, 3, two, None) is None  # waits for its pipeline
    assert set(ledger.holders) == {slot_key(0), slot_key(2)}
    go(ledger, 0)
    assert set(ledger.holders) == {slot_key(1), slot_key(2)}
    go(ledger, 2)
    assert set(ledger.holders) == {slot_key(1), slot_key(3)}


def test_runs_that_wait_for_their_deployment_do_not_keep_others_from_starting() -> None:
    ledger = LimitsLedger()
    many = ("p", 3, Overlap.QUEUE)
    for n in range(5):
        arrive(ledger, n, many, ("busy", 1, Overlap.QUEUE))
    late = 10 * int(slot_ledger.RESERVE_AFTER)
    arrive(ledger, late, many, ("other", 1, Overlap.QUEUE))
    assert set(ledger.holders) == {slot_key(0), slot_key(late)}


@pytest.mark.parametrize("limited", ["pipeline", "deployment"])
def test_each_limit_has_its_own_policy(limited: str) -> None:
    """The one that skips is full; the other one, which queues, is not."""
    ledger = LimitsLedger()
    first, second = ("p", 1, Overlap.SKIP), ("d", 5, Overlap.QUEUE)
    if limited == "deployment":
        first, second = ("p", 5, Overlap.QUEUE), ("d", 1, Overlap.SKIP)
    assert arrive(ledger, 0, first, second) is None
    assert arrive(ledger, 1, first, second) == (
        f"another run of the {limited} is active, and the {limited} skips further runs (overlap=skip)"
    )
    assert set(ledger.holders) == {slot_key(0)} and not ledger.waiters


def test_a_newer_run_of_the_deployment_cancels_the_previous_one() -> None:
    ledger = LimitsLedger()
    pipeline, deployment = ("p", 5, Overlap.QUEUE), ("d", 1, Overlap.CANCEL_PREVIOUS)
    arrive(ledger, 0, pipeline, ("other", 1, Overlap.QUEUE))
    arrive(ledger, 1, pipeline, deployment)
    arrive(ledger, 2, pipeline, deployment)
    assert cancel_requested(ledger) == {slot_key(1)}
    go(ledger, 1)
    assert set(ledger.holders) == {slot_key(0), slot_key(2)}


def test_a_run_that_one_limit_skips_cancels_none_of_the_other() -> None:
    ledger = LimitsLedger()
    pipeline, deployment = ("p", 1, Overlap.SKIP), ("d", 1, Overlap.CANCEL_PREVIOUS)
    arrive(ledger, 0, pipeline, deployment)
    assert arrive(ledger, 1, pipeline, deployment) is not None
    assert not cancel_requested(ledger) and not ledger.newest.get("deployment:default/d", (0.0,))[1:]


def test_a_run_that_waits_outside_of_the_ledger_is_restored() -> None:
    """It passed the limit that skips, and waits for the one that queues: a restart must not lose it."""
    ledger = LimitsLedger()
    arrive(ledger, 0, ("p", 1, Overlap.QUEUE), ("other", 1, Overlap.QUEUE))
    waiting = request(1, ("p", 1, Overlap.QUEUE), ("d", 1, Overlap.SKIP))
    assert overlap.admit(ledger, *waiting) is None
    slot_ledger.release(ledger, slot_key(1))
    overlap.restore(ledger, *waiting)
    go(ledger, 0)
    assert set(ledger.holders) == {slot_key(1)}
    only_skips = request(2, ("q", 1, Overlap.SKIP), ("e", 1, Overlap.SKIP))
    overlap.restore(ledger, *only_skips)
    assert slot_key(2) not in ledger.waiters
