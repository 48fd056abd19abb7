"""The executor's service with surroundings that are slow or refuse: cancels in between, slots, what is remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from penstock_adapters.nats.bus import Bus, BusError
from penstock_adapters.nats.consumer import Delivery
from penstock_contracts import events
from penstock_core.facts import ArtifactCommitted, AttemptFinished, AttemptRequested, AttemptStarted, Fact, Outcome
from penstock_core.ports import Recorded, Workplace
from penstock_executor.output import OutputShipper
from penstock_executor.service import ExecutorService


class Surroundings:
    """Implements `Edges`: a workplace that is ready when told, and a log that takes what it is told to take."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.asked = asyncio.Event()
        self.log: list[Fact] = []
        self.refuses = 0
        self.acked: list[Delivery] = []
        self.back: list[Delivery] = []
        self.shipper = OutputShipper(Bus.__new__(Bus), lambda *_, **__: None)

    def submit(self, fact: Fact) -> asyncio.Future[bool]:
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if self.refuses:
            self.refuses -= 1
            future.set_exception(BusError("refused"))
        else:
            self.log.append(fact)
            future.set_result(True)
        return future

    async def facts(self, places: list[str]) -> dict[str, Recorded]:
        return {}

    async def ack(self, delivery: Delivery) -> None:
        self.acked.append(delivery)

    async def hand_back(self, delivery: Delivery, delay: float) -> None:
        self.back.append(delivery)

    async def keep(self, delivery: Delivery) -> None:
        pass

    async def park(self, delivery: Delivery, error: str) -> None:
        pass

    async def workplace(self, attempt: AttemptRequested) -> Workplace:
        self.asked.set()
        await self.ready.wait()
        return Workplace(source="s", python="p", artifacts="a", environment="e")

    async def publish_artifacts(self, end: AttemptFinished) -> None:
        pass

    def output(self, attempt: tuple[str, str, int], entries: list[dict[str, Any]]) -> Awaitable[None]:
        shipped = self.shipper.ship(attempt, entries)
        shipped.set_result(None)
        return shipped

    def commit(self, fact: ArtifactCommitted) -> None:
        self.log.append(fact)

    async def settle(self, attempt: tuple[str, str, int]) -> None:
        pass

    def forget(self, attempt: tuple[str, str, int]) -> None:
        self.shipper.forget(attempt)


class Processes:
    """Implements `Executor`: keeps what was started and cancelled."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.cancelled: list[str] = []

    async def start(self, attempt: AttemptRequested, where: Workplace) -> None:
        self.started.append(attempt.key)

    async def cancel(self, run_id: str, key: str, attempt: int, reason: str) -> None:
        if key in self.started:
            self.cancelled.append(key)

    async def close(self) -> None:
        pass


class Bench:
    """A service with two slots. `wanted` is what it asked for last."""

    def __init__(self) -> None:
        self.edges = Surroundings()
        self.processes = Processes()
        self.wanted: list[int] = []
        self.service = ExecutorService("e", 2, self.edges, self.wanted.append, lambda *_, **__: None)
        self.service.use(self.processes)

    def deliver(self, key: str, *, body: bytes | None = None, seq: int = 1) -> Delivery:
        fact = AttemptRequested(
            run_id="r", key=key, attempt=1, pool="p", project="p", pipeline="q", version=1, entrypoint="m:f"
        )
        data = events.encode(fact) if body is None else body
        delivery = Delivery(events.subject(fact), data, seq, seq, 1, "executor-p", "", 0.0)
        self.service.receive(delivery)
        return delivery

    def end(self, key: str) -> None:
        self.service.started(AttemptStarted(run_id="r", key=key, attempt=1, executor="e"))
        self.service.finished(AttemptFinished(run_id="r", key=key, attempt=1, outcome=Outcome.SUCCEEDED))


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_cancel_while_the_workplace_is_made_ready_starts_nothing() -> None:
    bench = Bench()
    delivery = bench.deliver("a")
    await asyncio.wait_for(bench.edges.asked.wait(), 5)
    await bench.service.cancel("r", "enough")
    bench.edges.ready.set()
    await _settle()
    assert bench.processes.started == []
    assert [fact.outcome for fact in bench.edges.log if isinstance(fact, AttemptFinished)] == [Outcome.CANCELLED]
    assert bench.edges.acked == [delivery]
    assert bench.wanted[-1] == 2


async def test_an_end_that_cannot_be_recorded_in_any_form_comes_again() -> None:
    bench = Bench()
    bench.edges.ready.set()
    delivery = bench.deliver("a")
    await _settle()
    bench.edges.refuses = 2
    bench.end("a")
    await _settle()
    assert (bench.edges.back, bench.edges.acked) == ([delivery], [])
    assert bench.service.running == 0
    assert bench.wanted[-1] == 2


async def test_a_delivery_that_brings_nothing_is_asked_for_again_at_once() -> None:
    bench = Bench()
    bench.edges.ready.set()
    bench.deliver("a")
    await _settle()
    asked = len(bench.wanted)
    bench.deliver("a", seq=2)
    bench.deliver("b", body=b"no json", seq=3)
    assert bench.wanted[asked:] == [1, 1]


async def test_nothing_of_an_attempt_is_remembered_once_it_is_over() -> None:
    bench = Bench()
    bench.edges.ready.set()
    for n in range(50):
        bench.deliver(f"s-{n}")
        await _settle()
        bench.service.output("r", f"s-{n}", 1, [{"at": 0.0, "stream": "output", "text": "x"}])
        bench.end(f"s-{n}")
        await _settle()
    assert bench.service.running == 0
    assert bench.edges.shipper.following == 0
    assert len(bench.edges.acked) == 50
