"""Backfills: every item runs once per round, with several replicas and after redeliveries."""

from __future__ import annotations

import contextlib
import copy
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_contracts import deployment_codec
from penstock_core.deployments import backfills
from penstock_core.deployments.backfill_facts import (
    BackfillAdvanced,
    BackfillCancelled,
    BackfillFact,
    BackfillStarted,
    ItemOutcome,
)
from penstock_core.deployments.backfills import Backfill, BackfillError, NoBackfillError, Status, evolve

GOOD, BAD = ItemOutcome.SUCCEEDED, ItemOutcome.FAILED


def started(count: int = 5, max_active: int = 2, **more: Any) -> BackfillStarted:
    fields: dict[str, Any] = {
        "project": "default",
        "backfill": "b1",
        "number": 1,
        "deployment": "daily",
        "revision": 1,
        "pipeline": "sales",
        "version": 3,
        "ranges": ((0, count),),
        "max_active": max_active,
    }
    return BackfillStarted(**(fields | more))


def fold(*facts: BackfillFact) -> Backfill:
    state = Backfill("default", "b1")
    for fact in facts:
        evolve(state, fact, fact.number)
    return state


def follow(state: Backfill, facts: list[BackfillFact]) -> Backfill:
    for fact in facts:
        evolve(state, fact, fact.number)
    return state


def step(state: Backfill, **ends: ItemOutcome) -> Backfill:
    return follow(state, backfills.advance(state, {int(n[1:]): end for n, end in ends.items()}, 1.0))


def test_as_many_items_are_active_as_may_be_in_order() -> None:
    state = step(fold(started()))
    assert (state.active, [*state.pending], state.status) == ({0, 1}, [2, 3, 4], Status.RUNNING)
    state = step(state, n1=GOOD)
    assert (state.active, state.ended) == ({0, 2}, {1: GOOD})
    assert backfills.advance(state, {}, 2.0) == []
    newest = step(fold(started(newest_first=True, ranges=((1, 2), (7, 1)))))
    assert (newest.active, [*newest.pending]) == ({7, 2}, [1])


def test_a_backfill_ends_with_its_last_item() -> None:
    state = fold(started(count=2))
    state = step(step(state), n0=GOOD, n1=GOOD)
    assert (state.status, state.finished_at) == (Status.SUCCEEDED, 1.0)
    assert state.counts == Counter(succeeded=2)
    failed = step(step(fold(started(count=2))), n0=GOOD, n1=ItemOutcome.CANCELLED)
    assert failed.status is Status.FAILED


def test_ends_of_items_that_are_not_active_are_ignored() -> None:
    state = step(fold(started()))
    assert backfills.advance(state, {4: GOOD, 99: GOOD}, 1.0) == []
    # A fact of another implementation may say so anyway.
    follow(state, [BackfillAdvanced(project="default", backfill="b1", number=3, ended=((4, GOOD),), started=(0, 99))])
    assert (state.ended, state.active) == ({}, {0, 1})


def test_pause_and_resume() -> None:
    state = follow(step(fold(started())), backfills.pause(fold(started()), "user:ada", 1.0))
    assert state.number == 2, "the number was taken by the advance"
    state = step(fold(started()))
    follow(state, backfills.pause(state, "user:ada", 1.0, "later"))
    assert (state.status, backfills.pause(state, "user:ada", 1.0)) == (Status.PAUSED, [])
    state = step(state, n0=GOOD)
    assert state.active == {1}
    follow(state, backfills.resume(state, "user:ada", 1.0))
    assert backfills.resume(state, "user:ada", 1.0) == []
    assert step(state).active == {1, 2}


def test_cancel_with_and_without_runs() -> None:
    state = step(fold(started()))
    follow(state, backfills.cancel(state, "user:ada", 1.0, runs=False))
    assert state.status is Status.CANCELLING
    assert backfills.cancel(state, "user:ada", 1.0, runs=False) == []
    [again] = backfills.cancel(state, "user:ada", 1.0, runs=True)
    assert isinstance(again, BackfillCancelled)
    assert again.runs
    state = step(state, n0=GOOD, n1=ItemOutcome.CANCELLED)
    assert (state.status, len(state.pending)) == (Status.CANCELLED, 3)
    for change in (backfills.pause, backfills.resume, backfills.retry):
        with pytest.raises(BackfillError, match="cancelled"):
            change(state, "user:ada", 1.0)


def test_retry_runs_failed_items_as_new_runs() -> None:
    state = step(step(fold(started(count=3, max_active=3))), n0=GOOD, n1=BAD, n2=ItemOutcome.REJECTED)
    first = state.run_id(1, "k")
    facts = backfills.retry(state, "user:ada", 1.0)
    follow(follow(state, facts), facts)  # a fact that is folded twice counts once
    assert ([*state.pending], state.status, state.rounds) == ([1, 2], Status.RUNNING, {1: 1, 2: 1})
    assert state.run_id(1, "k") != first
    state = step(step(state), n1=GOOD, n2=GOOD)
    assert state.status is Status.SUCCEEDED
    with pytest.raises(BackfillError, match="no failed items"):
        backfills.retry(state, "user:ada", 1.0)
    for change in (backfills.pause, backfills.resume):
        with pytest.raises(BackfillError, match="has finished"):
            change(state, "user:ada", 1.0)
    with pytest.raises(BackfillError, match="has finished"):
        backfills.cancel(state, "user:ada", 1.0, runs=True)


def test_errors_are_bounded() -> None:
    state = step(fold(started(count=100, max_active=100)))
    errors = dict.fromkeys(range(100), "e" * 5000)
    [fact] = backfills.advance(state, dict.fromkeys(errors, ItemOutcome.REJECTED), 1.0, errors)
    assert isinstance(fact, BackfillAdvanced)
    assert len(fact.errors) == backfills.ERRORS_KEPT
    assert max(len(text) for _, text in fact.errors) == 1000
    assert len(follow(state, [fact]).errors) == backfills.ERRORS_KEPT
    assert len(deployment_codec.encode(fact)) < 32_000


def test_ten_thousand_scattered_items_are_one_message() -> None:
    fact = started(ranges=tuple((2 * n, 1) for n in range(50_000)))
    assert len(deployment_codec.encode(fact)) < 900_000
    state = fold(fact)
    for _ in range(100):
        state = step(state)
        state = step(state, **{f"n{n}": GOOD for n in state.active})
    assert len(state.ended) == 200


def test_a_backfill_without_facts_does_not_exist() -> None:
    state = Backfill("default", "b1")
    assert backfills.advance(state, {}, 1.0) == []
    for change in (backfills.pause, backfills.resume, backfills.retry):
        with pytest.raises(NoBackfillError):
            change(state, "user:ada", 1.0)
    evolve(state, BackfillAdvanced(project="default", backfill="b1", number=1), 1)
    assert (state.number, state.started) == (1, None)
    assert evolve(state, None, 2).number == 2


@pytest.mark.parametrize(
    ("state", "expected"),
    [("succeeded", GOOD), ("cancelled", ItemOutcome.CANCELLED), ("skipped", ItemOutcome.SKIPPED), ("new one", BAD)],
)
def test_the_state_of_a_run_is_the_outcome_of_its_item(state: str, expected: ItemOutcome) -> None:
    assert backfills.outcome(state) is expected


# ------------------------------------------------------------------------------------------------------- properties


@dataclass
class World:
    """The log as a broker keeps it, replicas with folds of different age, and the runs that were requested."""

    log: list[BackfillFact]
    replicas: list[Backfill]
    requested: Counter[str] = field(default_factory=Counter[str])
    finished: dict[str, ItemOutcome] = field(default_factory=dict[str, ItemOutcome])
    most_active: int = 0

    def fold(self, replica: int, upto: int) -> Backfill:
        state = self.replicas[replica]
        for fact in self.log[state.number : upto]:
            evolve(state, fact, fact.number)
        return state

    def append(self, facts: list[BackfillFact]) -> bool:
        """All or none; refused if the number is taken."""
        if not facts or facts[0].number != len(self.log) + 1:
            return False
        self.log += facts
        return True

    def handle(self, replica: int, fact: BackfillFact) -> None:
        """What the triggers service does with a delivery; runs have ids, so requesting one again is no other run."""
        state = self.fold(replica, len(self.log))
        if isinstance(fact, BackfillAdvanced):
            for number in fact.started:
                if number in state.active:
                    self.requested.setdefault(state.run_id(number, str(number)), 1)
        self.append(backfills.advance(state, {}, 1.0))

    def end(self, replica: int, run_id: str, outcome: ItemOutcome) -> None:
        state = self.fold(replica, len(self.log))
        ends = {n: outcome for n in state.active if state.run_id(n, str(n)) == run_id}
        self.append(backfills.advance(state, ends, 1.0))


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 12), st.integers(1, 4), st.booleans())
def test_each_item_runs_once_a_round_despite_stale_replicas_and_redelivery(
    data: st.DataObject, count: int, max_active: int, newest_first: bool
) -> None:
    world = World(
        [started(count, max_active, newest_first=newest_first)], [Backfill("default", "b1") for _ in range(3)]
    )
    draw = data.draw
    cancelled = False
    for _ in range(draw(st.integers(0, 60))):
        replica = draw(st.integers(0, 2))
        match draw(st.sampled_from(["deliver", "deliver", "end", "stale", "pause", "resume", "retry", "cancel"])):
            case "deliver":
                world.handle(replica, draw(st.sampled_from(world.log)))
            case "end" if world.requested:
                run_id = draw(st.sampled_from(sorted(world.requested)))
                outcome = world.finished.setdefault(run_id, draw(st.sampled_from([GOOD, BAD])))
                world.end(replica, run_id, outcome)
            case "stale":
                state = world.fold(replica, draw(st.integers(0, len(world.log))))
                world.append(backfills.advance(state, {}, 1.0))
            case "cancel" if draw(st.integers(0, 5)) == 0:
                state = world.fold(replica, len(world.log))
                if state.status not in (Status.SUCCEEDED, Status.FAILED):
                    cancelled = True
                    world.append(backfills.cancel(state, "user:ada", 1.0, runs=False))
            case "pause" | "resume" | "retry" as verb:
                state = world.fold(replica, len(world.log))
                with contextlib.suppress(BackfillError):
                    world.append(getattr(backfills, verb)(state, "user:ada", 1.0))
            case _:
                pass
        state = fold(*copy.copy(world.log))
        assert len(state.active) <= max_active
        assert {*state.active} | {*state.ended} | {*state.pending} == {*range(count)}
        assert len(state.active) + len(state.ended) + len(state.pending) == count
    # Whatever happened, deliveries and ends that follow bring it to its end.
    final = fold(*world.log)
    if final.paused and final.status not in backfills.FINISHED and not cancelled:
        world.append(backfills.resume(world.fold(0, len(world.log)), "user:ada", 1.0))
    for _ in range(4 * count + 4):
        for fact in [*world.log]:
            world.handle(0, fact)
        for run_id in sorted(world.requested):
            world.end(0, run_id, world.finished.setdefault(run_id, GOOD))
    final = fold(*world.log)
    assert final.status in backfills.FINISHED
    assert not final.active
    if not cancelled:
        rounds = {final.run_id(n, str(n)) for n in range(count)}
        assert rounds <= {*world.requested}
        assert all(final.ended[n] is world.finished[final.run_id(n, str(n))] for n in range(count))
    starts = Counter(number for fact in world.log if isinstance(fact, BackfillAdvanced) for number in fact.started)
    assert all(starts[number] <= 1 + final.rounds.get(number, 0) for number in range(count))
