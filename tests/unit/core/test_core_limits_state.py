"""The limits ledger: never above capacity, no starvation, idempotent operations."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from penstock_core.facts import Limit
from penstock_core.limits import slot_ledger
from penstock_core.limits.slot_ledger import AGEING, LimitsLedger, Notice, SlotKey, Waiter

GPU = (Limit(name="gpu", most=2),)


def slot_key(n: int) -> SlotKey:
    return (f"run{n}", "train", 1)


def waiter(n: int, needs: tuple[Limit, ...] = GPU, priority: int = 0, since: float = 0.0) -> Waiter:
    return Waiter(slot_key(n), needs, priority, since)


def holding(ledger: LimitsLedger) -> set[SlotKey]:
    return set(ledger.holders)


def filled(*waiters: Waiter, now: float = 0.0, sizes: dict[str, int] | None = None) -> LimitsLedger:
    ledger = LimitsLedger()
    for one in waiters:
        slot_ledger.enqueue(ledger, one)
    slot_ledger.serve(ledger, sizes or {}, now)
    return ledger


def test_slots_are_granted_first_come_first_served() -> None:
    ledger = filled(*(waiter(n, since=float(n)) for n in (3, 1, 2, 0)))
    assert holding(ledger) == {slot_key(0), slot_key(1)}
    assert set(ledger.pending_notices) == {(slot_key(0), Notice.GRANTED), (slot_key(1), Notice.GRANTED)}


def test_a_freed_slot_goes_to_the_next() -> None:
    ledger = filled(*(waiter(n, since=float(n)) for n in range(4)))
    slot_ledger.release(ledger, slot_key(0))
    slot_ledger.serve(ledger, {}, 1.0)
    assert holding(ledger) == {slot_key(1), slot_key(2)}


def test_priority_goes_first_and_waiting_counts_as_priority() -> None:
    one = (Limit(name="gpu", most=1),)
    ledger = filled(waiter(0, one))
    late = waiter(1, one, priority=5, since=AGEING * 4)
    slot_ledger.enqueue(ledger, late)
    slot_ledger.enqueue(ledger, waiter(2, one, priority=0, since=0.0))
    slot_ledger.release(ledger, slot_key(0))
    slot_ledger.serve(ledger, {}, AGEING * 4)
    assert holding(ledger) == {slot_key(1)}  # five more of priority, four minutes later
    slot_ledger.enqueue(ledger, waiter(3, one, priority=5, since=AGEING * 6))
    slot_ledger.release(ledger, slot_key(1))
    slot_ledger.serve(ledger, {}, AGEING * 6)
    assert holding(ledger) == {slot_key(2)}  # it has waited for six minutes by now
    assert late.effective(AGEING * 6) == 7


def test_the_platforms_setting_overrides_the_steps() -> None:
    assert len(filled(*map(waiter, range(5)), sizes={"gpu": 4}).holders) == 4
    assert len(filled(*map(waiter, range(5)), sizes={"gpu": 0}).holders) == 0


def test_a_lowered_size_revokes_nothing_and_grants_nothing_until_below_capacity() -> None:
    ledger = filled(*(waiter(n, since=float(n)) for n in range(4)), sizes={"gpu": 3})
    slot_ledger.serve(ledger, {"gpu": 1}, 1.0)
    assert len(ledger.holders) == 3
    slot_ledger.release(ledger, slot_key(0))
    slot_ledger.release(ledger, slot_key(1))
    slot_ledger.serve(ledger, {"gpu": 1}, 1.0)
    assert holding(ledger) == {slot_key(2)}


def test_an_unknown_limit_grants_no_slot_and_blocks_nothing() -> None:
    unknown = waiter(0, (Limit(name="licence"),))
    ledger = filled(unknown, waiter(1, since=1.0))
    assert holding(ledger) == {slot_key(1)}
    assert slot_ledger.unknown(unknown, {}) == "licence"
    assert slot_ledger.unknown(unknown, {"licence": 1}) is None


def test_a_pool_without_a_size_is_no_limit() -> None:
    assert len(filled(*(waiter(n, (Limit(name="pool:big"),)) for n in range(50))).holders) == 50


def test_slots_of_several_limits_are_acquired_atomically() -> None:
    both = (Limit(name="a", most=1), Limit(name="b", most=1))
    ledger = filled(waiter(0, (Limit(name="b", most=1),)), waiter(1, both, since=1.0))
    assert ledger.taken() == {"b": 1}
    slot_ledger.enqueue(ledger, waiter(2, (Limit(name="a", most=1),), since=2.0))
    slot_ledger.serve(ledger, {}, 2.0)
    assert holding(ledger) == {slot_key(0), slot_key(2)}  # a is free, so it is used meanwhile


def test_a_waiter_for_several_limits_does_not_starve() -> None:
    both = (Limit(name="a", most=1), Limit(name="b", most=1))
    ledger = filled(waiter(0, (Limit(name="a", most=1),)), waiter(1, (Limit(name="b", most=1),)))
    slot_ledger.enqueue(ledger, waiter(2, both))
    now = 0.0
    for n in range(3, 200, 2):
        now += 5.0
        for offset, name in enumerate("ab"):
            slot_ledger.enqueue(ledger, waiter(n + offset, (Limit(name=name, most=1),), since=now))
        # a and b are never released at the same time
        back = next((h.slot_key for h in ledger.holders.values() if h.limits == ("ab"[n // 2 % 2],)), None)
        if back is not None:
            slot_ledger.release(ledger, back)
        slot_ledger.serve(ledger, {}, now)
        if slot_key(2) in ledger.holders:
            break
    assert slot_ledger.RESERVE_AFTER <= now <= slot_ledger.RESERVE_AFTER + 30.0


def test_a_step_that_allows_more_does_not_starve_one_that_allows_less() -> None:
    less, more = (Limit(name="gpu", most=1),), (Limit(name="gpu", most=2),)
    ledger = filled(waiter(0, more), waiter(1, more))
    slot_ledger.enqueue(ledger, waiter(2, less, since=1.0))
    slot_ledger.enqueue(ledger, waiter(3, more, since=2.0))
    slot_ledger.release(ledger, slot_key(0))
    slot_ledger.serve(ledger, {}, 3.0)
    assert holding(ledger) == {slot_key(1)}
    slot_ledger.release(ledger, slot_key(1))
    slot_ledger.serve(ledger, {}, 3.0)
    assert holding(ledger) == {slot_key(2), slot_key(3)}  # its own setting allows two


def test_ledger_changes_are_idempotent() -> None:
    ledger = filled(waiter(0), waiter(1), waiter(2))
    again = ledger.copy()
    for n in range(3):
        slot_ledger.enqueue(again, waiter(n, priority=9, since=9.0))
    slot_ledger.serve(again, {}, 5.0)
    assert again == ledger
    slot_ledger.release(ledger, slot_key(0))
    slot_ledger.release(ledger, slot_key(0))
    slot_ledger.release(ledger, slot_key(7))
    assert holding(ledger) == {slot_key(1)}


def test_leaving_clears_pending_grants() -> None:
    ledger = filled(waiter(0))
    slot_ledger.release(ledger, slot_key(0))
    assert ledger == LimitsLedger()


def test_excess_waiters_are_evicted_and_come_back() -> None:
    ledger = filled(*(waiter(n, since=float(n), priority=n // 1200) for n in range(1500)))
    slot_ledger.trim(ledger)
    assert len(ledger.waiters) <= slot_ledger.MAX_WAITERS
    kept = sorted(ledger.waiters.values(), key=lambda one: one.rank)
    assert kept[-1].rank < min(
        waiter(n, since=float(n), priority=n // 1200).rank
        for n in range(1500)
        if slot_key(n) not in ledger.waiters and slot_key(n) not in ledger.holders
    )
    assert set(ledger.outside) == {"gpu"} and not slot_ledger.exhausted_limits(ledger)
    for one in kept[: slot_ledger.MAX_WAITERS // 2 + 1]:
        slot_ledger.release(ledger, one.slot_key)
    assert slot_ledger.exhausted_limits(ledger) == {"gpu"}


def test_waiters_of_one_limit_do_not_evict_those_of_another() -> None:
    ledger = LimitsLedger()
    for n in range(slot_ledger.MAX_WAITERS * 3):
        slot_ledger.enqueue(ledger, Waiter((f"run{n}", "k" * 150, 1), GPU, 0, float(n)))
    few = [waiter(n, (Limit(name="few", most=0),), since=1e6) for n in range(90_000, 90_010)]
    for one in few:
        slot_ledger.enqueue(ledger, one)
    slot_ledger.trim(ledger)
    assert all(one.slot_key in ledger.waiters for one in few)
    assert set(ledger.outside) == {"gpu"}


NAMES = ("a", "b", "pool:p")
NEEDS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True)


class Books(RuleBasedStateMachine):
    """A ledger under any order of requests, releases, grants and resizes, with everything repeated."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = LimitsLedger()
        self.now = 0.0
        self.sizes = {"a": 1, "b": 2, "pool:p": 3}
        self.asked: set[SlotKey] = set()

    @rule(n=st.integers(0, 30), needs=NEEDS, priority=st.integers(-3, 3))
    def ask(self, n: int, needs: list[str], priority: int) -> None:
        one = waiter(n, tuple(Limit(name=name, most=4) for name in needs), priority, self.now)
        slot_ledger.enqueue(self.ledger, one)
        slot_ledger.enqueue(self.ledger, one)
        self.asked.add(one.slot_key)

    @rule(n=st.integers(0, 30))
    def leave(self, n: int) -> None:
        slot_ledger.release(self.ledger, slot_key(n))
        self.asked.discard(slot_key(n))

    @rule(n=st.integers(0, 30))
    def dismiss(self, n: int) -> None:
        slot_ledger.ask_to_leave(self.ledger, slot_key(n))

    @rule(name=st.sampled_from(NAMES), size=st.none() | st.integers(0, 4))
    def resize(self, name: str, size: int | None) -> None:
        self.sizes.pop(name, None)
        if size is not None:
            self.sizes[name] = size

    @rule(seconds=st.floats(0, 100))
    def serve(self, seconds: float) -> None:
        self.now += seconds
        before = self.ledger.copy()
        slot_ledger.serve(self.ledger, self.sizes, self.now)
        for name, taken in self.ledger.taken().items():
            most = max(before.taken()[name], slot_ledger.capacity(Limit(name=name, most=4), self.sizes) or 0)
            assert taken <= most, f"{name}: {taken} slots are held, {most} may be"
        for one in set(self.ledger.holders) - set(before.holders):
            assert not before.waiters[one].cancel_requested
            assert (one, Notice.GRANTED) in self.ledger.pending_notices
        after = self.ledger.copy()
        slot_ledger.serve(self.ledger, self.sizes, self.now)
        assert self.ledger == after, "there was something left to give"

    @rule()
    def look_from_outside(self) -> None:
        """The first waiter with free slots in all its limits has been served."""
        slot_ledger.serve(self.ledger, self.sizes, self.now)
        waiting = [one for one in self.ledger.waiters.values() if not one.cancel_requested]
        if waiting:
            first = min(waiting, key=lambda one: one.rank)
            taken = self.ledger.taken()
            assert any(taken[n.name] >= (slot_ledger.capacity(n, self.sizes) or 0) for n in first.needs)

    @invariant()
    def everybody_is_in_one_place(self) -> None:
        assert not set(self.ledger.holders) & set(self.ledger.waiters)
        assert set(self.ledger.holders) | set(self.ledger.waiters) == self.asked
        assert {one for one, _ in self.ledger.pending_notices} <= self.asked


Books.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestBooks = Books.TestCase


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 3))
def test_no_waiter_starves_for_any_arrivals(seed: int, slots: int) -> None:
    """High priorities arrive as fast as they can be served; a low one is served once it has aged enough."""
    rng = random.Random(seed)
    need = (Limit(name="gpu", most=slots),)
    ledger, now, n = LimitsLedger(), 0.0, 1
    low = waiter(0, need, priority=0)
    slot_ledger.enqueue(ledger, low)
    ends: dict[SlotKey, float] = {}
    while low.slot_key not in ledger.holders:
        now += 1.0
        while len(ledger.waiters) < 6:  # there is always a waiter with higher priority
            slot_ledger.enqueue(ledger, waiter(n, need, priority=rng.randint(1, 10), since=now))
            n += 1
        for one in [one for one, end in ends.items() if end <= now]:
            slot_ledger.release(ledger, one)
            del ends[one]
        slot_ledger.serve(ledger, {}, now)
        for one in set(ledger.holders) - set(ends):
            ends[one] = now + rng.uniform(1.0, 20.0)
        assert now < AGEING * 10 + 6 * 20.0 + 1, "it waited longer than it takes to become the most important"
