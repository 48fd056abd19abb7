"""Fakes for the executor's service: a slow platform, and an executor that records its calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from penstock_adapters.nats.bus import BusError
from penstock_adapters.nats.consumer import Delivery
from penstock_contracts import fact_codec
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
from penstock_core.ownership import OwnerStatus
from penstock_core.ports import Recorded
from penstock_core.shipping.messages import Message
from penstock_executor.cache import CacheLookup
from penstock_executor.service import ExecutorService


class FakeEdges:
    """Implements `Platform`: a log that accepts configured facts."""

    def __init__(self) -> None:
        self.known: dict[str, Recorded] = {}
        self.log: list[Fact] = []
        self.refuses = 0
        self.fencing_number = 7
        self.owner = OwnerStatus.GONE
        self.rivals: list[OwnerStatus] = []
        self.acked: list[Delivery] = []
        self.back: list[Delivery] = []
        self.extended: list[Delivery] = []
        self.published: list[Message] = []
        self.forgotten: list[tuple[str, str, int]] = []

    def submit(self, fact: Fact) -> asyncio.Future[bool]:
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if self.refuses:
            self.refuses -= 1
            future.set_exception(BusError("refused"))
        else:
            taken = fact.append_once and any(fact_codec.subject(fact) == fact_codec.subject(one) for one in self.log)
            if not taken:
                self.log.append(fact)
            future.set_result(not taken)
        return future

    async def facts(self, places: list[str]) -> dict[str, Recorded]:
        return {place: self.known[place] for place in places if place in self.known}

    async def latest(self, subject: str) -> Fact | None:
        return next((fact for fact in self.log if fact_codec.subject(fact) == subject), None)

    @property
    def fence(self) -> int:
        return self.fencing_number

    async def owner_status(self, started: AttemptStarted) -> OwnerStatus:
        return self.owner

    async def others(self, attempt: tuple[str, str, int]) -> list[OwnerStatus]:
        return self.rivals

    async def ack(self, delivery: Delivery) -> None:
        self.acked.append(delivery)

    async def return_delivery(self, delivery: Delivery, delay: float) -> None:
        self.back.append(delivery)

    async def extend(self, delivery: Delivery) -> None:
        self.extended.append(delivery)

    async def park(self, delivery: Delivery, error: str) -> None:
        pass

    async def publish_artifacts(self, end: AttemptFinished) -> None:
        pass

    def publish(self, message: Message) -> Awaitable[None]:
        self.published.append(message)
        shipped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        shipped.set_result(None)
        return shipped

    def commit(self, fact: ArtifactCommitted) -> None:
        self.log.append(fact)

    async def drain(self, attempt: tuple[str, str, int]) -> None:
        pass

    async def look_up(self, attempt: AttemptRequested, rule: CacheRule) -> CacheLookup:
        return CacheLookup(CacheReport())

    async def store_result(self, attempt: AttemptRequested, report: CacheReport, end: AttemptFinished) -> CacheReport:
        return report

    def forget(self, attempt: tuple[str, str, int]) -> None:
        self.forgotten.append(attempt)


class FakeProcesses:
    """Implements `Executor`: records what was submitted and cancelled.

    `submit` returns when `ready` is set, or raises `error`.
    """

    def __init__(self, *, durable: bool = False) -> None:
        self.durable = durable
        self.error: Exception | None = None
        self.own: Callable[[AttemptRequested], Awaitable[None]] | None = None
        self.started: list[str] = []
        self.cancelled: list[str] = []
        self.ready = asyncio.Event()
        self.ready.set()

    async def submit(self, attempt: AttemptRequested) -> None:
        self.started.append(attempt.key)
        await self.ready.wait()
        if self.error is not None:
            raise self.error
        if self.own is not None:
            try:
                await self.own(attempt)
            except BaseException:
                self.started.remove(attempt.key)
                raise

    async def cancel(self, run_id: str, key: str, attempt: int, reason: str) -> None:
        if key in self.started:
            self.cancelled.append(key)

    async def close(self) -> None:
        pass


class ServiceHarness:
    """A service with two slots. `wanted` is its last number of requested attempts."""

    def __init__(self, ahead: int = 0, *, durable: bool = False) -> None:
        self.platform = FakeEdges()
        self.processes = FakeProcesses(durable=durable)
        self.wanted: list[int] = []
        self.service = ExecutorService(
            "e", 2, self.platform, self.wanted.append, lambda *_, **__: None, look_ahead=ahead
        )
        self.service.use(self.processes)
        if not durable:
            self.processes.own = self.service.own

    def deliver(
        self, key: str, *, body: bytes | None = None, seq: int = 1, delivered: int = 1, at: float = 0.0, **given: Any
    ) -> Delivery:
        fact = AttemptRequested(
            run_id="r", key=key, attempt=1, pool="p", project="p", pipeline="q", version=1, entrypoint="m:f"
        )
        fact = replace(fact, **given)
        data = fact_codec.encode(fact) if body is None else body
        delivery = Delivery(fact_codec.subject(fact), data, seq, seq, delivered, "executor-p", "", at)
        self.service.receive(delivery)
        return delivery

    def end(self, key: str) -> None:
        self.service.started(AttemptStarted(run_id="r", key=key, attempt=1, executor="e"))
        self.service.finished(AttemptFinished(run_id="r", key=key, attempt=1, outcome=Outcome.SUCCEEDED))
