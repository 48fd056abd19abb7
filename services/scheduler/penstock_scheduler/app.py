"""Composition root of the scheduler."""

from __future__ import annotations

import asyncio
import contextlib
import sys

from penstock_adapters.nats import consumer
from penstock_adapters.nats.consumer import Delivery, Puller
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_adapters.nats.versions import Versions
from penstock_contracts import subjects
from penstock_core import ids
from penstock_core.ports import Unavailable
from penstock_scheduler.service import Inbox, Scheduler
from penstock_scheduler.settings import SchedulerSettings
from penstock_servicekit.link import Link


class Edges:
    """The scheduler's surroundings on NATS."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def ack(self, delivery: Delivery) -> None:
        """See the protocol."""
        await consumer.ack(self._link.bus, delivery)

    async def retry(self, delivery: Delivery, delay: float) -> None:
        """See the protocol."""
        await consumer.nak(self._link.bus, delivery, delay)

    async def park(self, delivery: Delivery, error: str) -> None:
        """See the protocol."""
        await self._link.park(delivery.subject, delivery.data, error, delivery.stream_seq)

    def warn(self, event: str, **details: object) -> None:
        """See the protocol."""
        self._link.log.warning(event, **details)


class SchedulerService:
    """The scheduler with its consumers. One loop handles all shards: its load makes its batches."""

    def __init__(self, link: Link, settings: SchedulerSettings) -> None:
        self._link = link
        self._batch = settings.scheduler_batch
        log = NatsRunLog(link.bus, f"penstock/scheduler/{link.name}")
        self._scheduler = Scheduler(log, Versions(link.bus), Edges(link), keep=settings.scheduler_runs)
        self._inbox = Inbox()
        self._pullers = [
            Puller(link.bus, subjects.RUNS, subjects.scheduler_consumer(shard), self._inbox.put)
            for shard in range(ids.SHARDS)
        ]
        self._tasks: list[asyncio.Task[None]] = []
        self._catching_up: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to pull and decide."""
        await self._set_horizon()
        self._link.bus.on_reconnect(self._reconnected)
        for puller in self._pullers:
            puller.want(self._batch)
        self._tasks = [self._link.task(puller.run()) for puller in self._pullers]
        self._tasks.append(self._link.task(self._work()))

    async def stop(self) -> None:
        """Stop; what is unacknowledged goes to another replica or to the next start."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError, Exception):  # a failure is told when it happens
                await task

    def ready(self) -> bool:
        """Whether the loops run."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    async def _set_horizon(self) -> None:
        info = await self._link.bus.api(f"STREAM.INFO.{subjects.RUNS}")
        self._scheduler.horizon = int(info["state"]["last_seq"])

    def _reconnected(self) -> None:
        """What the server has counted as delivered may be less than it was: trust nothing until it is known."""
        self._scheduler.horizon = sys.maxsize
        self._catching_up = asyncio.create_task(self._set_horizon_later())

    async def _set_horizon_later(self) -> None:
        while True:
            try:
                await self._set_horizon()
                return
            except Unavailable:
                await asyncio.sleep(0.5)

    async def _work(self) -> None:
        while True:
            deliveries = await self._inbox.take()
            try:
                await self._scheduler.handle(deliveries)
            except Exception:
                # A fault of ours must not stop the others' runs: the messages come again after their wait.
                self._link.log.exception("a round failed", facts=len(deliveries))
                await asyncio.sleep(0.5)


def build(link: Link, settings: SchedulerSettings) -> SchedulerService:
    """Put the scheduler together."""
    return SchedulerService(link, settings)
