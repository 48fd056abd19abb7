"""Overlap policies: runs beyond the limit of a pipeline."""

from __future__ import annotations

import pytest

from penstock_core.limits import overlap, slot_ledger
from penstock_core.limits.slot_ledger import LimitsLedger, Notice, SlotKey
from penstock_core.pipeline.ir import Overlap


def slot_key(n: int) -> SlotKey:
    return (f"run{n}", "", 0)


def come(ledger: LimitsLedger, n: int, policy: Overlap, most: int = 1, pipeline: str = "p") -> str | None:
    run = overlap.run_waiter(f"run{n}", overlap.run_limit("default", pipeline, most), 0, float(n))
    why = overlap.admit(ledger, run, policy)
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
