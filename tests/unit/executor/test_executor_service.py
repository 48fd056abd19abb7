"""The executor's service with surroundings that are slow or refuse: cancels in between, slots, what is remembered."""

from __future__ import annotations

import asyncio

from executor_fakes import ServiceHarness

from penstock_contracts import subjects
from penstock_core.facts import AttemptFinished, Outcome
from penstock_core.ports import Recorded


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_cancel_while_the_workplace_is_made_ready_starts_nothing() -> None:
    bench = ServiceHarness()
    delivery = bench.deliver("a")
    await asyncio.wait_for(bench.platform.asked.wait(), 5)
    await bench.service.cancel("r", "enough")
    bench.platform.ready.set()
    await _settle()
    assert bench.processes.started == []
    assert [fact.outcome for fact in bench.platform.log if isinstance(fact, AttemptFinished)] == [Outcome.CANCELLED]
    assert bench.platform.acked == [delivery]
    assert bench.wanted[-1] == 2


async def test_an_end_that_cannot_be_recorded_in_any_form_comes_again() -> None:
    bench = ServiceHarness()
    bench.platform.ready.set()
    delivery = bench.deliver("a")
    await _settle()
    bench.platform.refuses = 2
    bench.end("a")
    await _settle()
    assert (bench.platform.back, bench.platform.acked) == ([delivery], [])
    assert bench.service.running == 0
    assert bench.wanted[-1] == 2


async def test_a_delivery_that_brings_nothing_is_asked_for_again_at_once() -> None:
    bench = ServiceHarness()
    bench.platform.ready.set()
    bench.deliver("a")
    await _settle()
    asked = len(bench.wanted)
    bench.deliver("a", seq=2)
    bench.deliver("b", body=b"no json", seq=3)
    assert bench.wanted[asked:] == [1, 1]


async def test_nothing_of_an_attempt_is_remembered_once_it_is_over() -> None:
    bench = ServiceHarness()
    bench.platform.ready.set()
    for n in range(50):
        bench.deliver(f"s-{n}")
        await _settle()
        bench.service.output("r", f"s-{n}", 1, [{"at": 0.0, "stream": "output", "text": "x"}])
        bench.end(f"s-{n}")
        await _settle()
    assert bench.service.running == 0
    assert bench.platform.shipper.following == 0
    assert len(bench.platform.acked) == 50


async def test_an_attempt_that_others_have_ended_in_the_log_is_ended() -> None:
    bench = ServiceHarness()
    bench.platform.ready.set()
    bench.deliver("a")
    await _settle()
    place = subjects.finished("r", "a", 1)
    end = AttemptFinished(run_id="r", key="a", attempt=1, outcome=Outcome.TIMED_OUT)
    await bench.service.find_ended_attempts()
    assert bench.processes.cancelled == []
    bench.platform.known[place] = Recorded(1, 0.0, end)
    await bench.service.find_ended_attempts()
    await bench.service.find_ended_attempts()
    assert bench.processes.cancelled == ["a"]
