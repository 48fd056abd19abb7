"""Attempts that wait in the executor for a slot: order, cancels, time-outs, redelivery, stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from executor_fakes import ServiceHarness

from penstock_core.facts import AttemptFinished, AttemptStarted, Outcome
from penstock_core.limits.slot_ledger import AGEING
from penstock_core.ports import Recorded


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


async def full(ahead: int = 10) -> ServiceHarness:
    """A service whose two slots are taken by `a` and `b`."""
    bench = ServiceHarness(ahead)
    bench.deliver("a")
    bench.deliver("b")
    await until(lambda: bench.processes.started == ["a", "b"])
    return bench


async def in_line(bench: ServiceHarness, count: int) -> None:
    await until(lambda: bench.wanted[-1] == 10 - count)
    for _ in range(20):  # it is checked before it is queued
        await asyncio.sleep(0)


def ends(bench: ServiceHarness) -> list[tuple[str, Outcome, str]]:
    found = [fact for fact in bench.platform.log if isinstance(fact, AttemptFinished)]
    return [(fact.key, fact.outcome, fact.error.type if fact.error else "") for fact in found]


async def test_without_prefetch_only_free_slots_are_requested() -> None:
    bench = await full(ahead=0)
    assert bench.wanted[-1] == 0
    bench.end("a")
    await until(lambda: bench.wanted[-1] == 1)


async def test_the_most_important_starts_first_and_equals_by_age() -> None:
    bench = await full()
    now = time.time()
    bench.deliver("low", priority=-1, at=now)
    bench.deliver("second", at=now + 1)
    bench.deliver("first", at=now)
    bench.deliver("high", priority=5, at=now + 2)
    await in_line(bench, 4)
    for key in ("a", "b", "high", "first"):
        bench.end(key)
        await until(lambda key=key: len(bench.processes.started) > bench.processes.started.index(key) + 2)
    assert bench.processes.started == ["a", "b", "high", "first", "second", "low"]
    await in_line(bench, 0)


async def test_a_long_waiting_attempt_is_not_overtaken() -> None:
    bench = await full()
    now = time.time()
    bench.deliver("new", priority=5, at=now)
    bench.deliver("old", at=now - 6 * AGEING)
    await in_line(bench, 2)
    bench.end("a")
    await until(lambda: len(bench.processes.started) == 3)
    assert bench.processes.started[-1] == "old"


async def test_a_cancel_ends_queued_attempts_except_exit_handlers() -> None:
    bench = await full()
    delivery = bench.deliver("gone", run_id="other")
    bench.deliver("cleanup", run_id="other", closing=True)
    await in_line(bench, 2)
    await bench.service.cancel("other", "enough")
    await until(lambda: bench.platform.acked == [delivery])
    assert ends(bench) == [("gone", Outcome.CANCELLED, "Cancelled")]
    bench.end("a")
    await until(lambda: bench.processes.started == ["a", "b", "cleanup"])


async def test_an_attempt_that_cannot_start_in_time_times_out() -> None:
    bench = await full()
    late = bench.deliver("late", start_by=time.time() - 1)
    soon = bench.deliver("soon", start_by=time.time() + 0.2)
    bench.deliver("patient", start_by=time.time() + 600)
    await until(lambda: bench.platform.acked == [late, soon])
    assert ends(bench) == [(key, Outcome.TIMED_OUT, "QueueTimeout") for key in ("late", "soon")]
    bench.end("a")
    await until(lambda: bench.processes.started == ["a", "b", "patient"])


async def test_an_expired_attempt_does_not_take_a_free_slot() -> None:
    bench = ServiceHarness()
    bench.deliver("late", start_by=time.time() - 1)
    await until(lambda: ends(bench) == [("late", Outcome.TIMED_OUT, "QueueTimeout")])
    assert bench.processes.started == [] and bench.wanted[-1] == 2


async def test_a_lost_attempt_is_reported_while_all_slots_are_busy() -> None:
    bench = await full()
    started = AttemptStarted(run_id="r", key="lost", attempt=1, executor="gone")
    place = "runs.05.r.step.lost.1.started"
    bench.platform.known = {place: Recorded(1, 0.0, started)}
    shard = bench.deliver("lost", delivered=2).subject.split(".")[1]
    bench.platform.known = {place.replace(".05.", f".{shard}."): Recorded(1, 0.0, started)}
    await until(lambda: ends(bench) == [("lost", Outcome.LOST, "Lost")])
    bench.deliver("again", delivered=2)
    await in_line(bench, 1)


async def test_redelivery_of_a_queued_attempt_changes_nothing() -> None:
    bench = await full()
    bench.deliver("c")
    await in_line(bench, 1)
    newest = bench.deliver("c", delivered=2, seq=9)
    bench.end("a")
    await until(lambda: "c" in bench.processes.started)
    bench.end("c")
    await until(lambda: newest in bench.platform.acked)
    assert bench.processes.started == ["a", "b", "c"]


async def test_an_attempt_before_its_start_time_is_handed_back() -> None:
    bench = await full()
    early = bench.deliver("early", not_before=time.time() + 60)
    await until(lambda: bench.platform.back == [early])
    await in_line(bench, 0)


async def test_a_stop_hands_queued_attempts_back() -> None:
    bench = await full()
    back = [bench.deliver(key) for key in ("c", "d")]
    await in_line(bench, 2)
    stopping = asyncio.create_task(bench.service.stop(5.0))
    await until(lambda: len(bench.platform.back) == 2)
    assert sorted(d.subject for d in bench.platform.back) == sorted(d.subject for d in back)
    for key in "ab":
        bench.end(key)
    await stopping
    assert bench.processes.started == ["a", "b"] and bench.wanted[-1] == 0
