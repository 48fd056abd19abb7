"""The executor's service on a bench: slow surroundings, and processes that only note what they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

from penstock_adapters.nats.bus import Bus, BusError
from penstock_adapters.nats.consumer import Delivery
from penstock_contracts import events
from penstock_core.facts import (
    ArtifactCommitted,
    AttemptFinished,
    AttemptRequested,
    AttemptStarted,
    CacheReport,
    CacheRule,
    Fact,
    Outcome,
)
from penstock_core.ports import Recorded, Workplace
from penstock_executor.cache import Look
from penstock_executor.output import OutputShipper
from penstock_executor.service import ExecutorService


class Surroundings:
    """Implements `Edges`: a workplace that is ready when told, and a log that takes what it is told to take."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.known: dict[str, Recorded] = {}
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
        return {place: self.known[place] for place in places if place in self.known}

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

    async def look(self, attempt: AttemptRequested, rule: CacheRule) -> Look:
        return Look(CacheReport())

    async def keep_result(self, attempt: AttemptRequested, report: CacheReport, end: AttemptFinished) -> CacheReport:
        return report

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

    def __init__(self, ahead: int = 0) -> None:
        self.edges = Surroundings()
        self.processes = Processes()
        self.wanted: list[int] = []
        self.service = ExecutorService("e", 2, self.edges, self.wanted.append, lambda *_, **__: None, ahead=ahead)
        self.service.use(self.processes)

    def deliver(
        self, key: str, *, body: bytes | None = None, seq: int = 1, delivered: int = 1, at: float = 0.0, **given: Any
    ) -> Delivery:
        fact = AttemptRequested(
            run_id="r", key=key, attempt=1, pool="p", project="p", pipeline="q", version=1, entrypoint="m:f"
        )
        fact = replace(fact, **given)
        data = events.encode(fact) if body is None else body
        delivery = Delivery(events.subject(fact), data, seq, seq, delivered, "executor-p", "", at)
        self.service.receive(delivery)
        return delivery

    def end(self, key: str) -> None:
        self.service.started(AttemptStarted(run_id="r", key=key, attempt=1, executor="e"))
        self.service.finished(AttemptFinished(run_id="r", key=key, attempt=1, outcome=Outcome.SUCCEEDED))
