"""Composition root of the scheduler."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from typing import Any

from penstock_adapters.nats import consumer
from penstock_adapters.nats.consumer import Delivery, Puller
from penstock_adapters.nats.limits import BookStore, Sizes
from penstock_adapters.nats.models import ModelLog
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_adapters.nats.versions import Versions
from penstock_contracts import subjects
from penstock_core import ids
from penstock_core.ports import Unavailable
from penstock_scheduler import subscribers
from penstock_scheduler.inbox import Inbox
from penstock_scheduler.limits import Limits
from penstock_scheduler.limits_check import LimitsCheck
from penstock_scheduler.membership import Presence
from penstock_scheduler.outside import Outside
from penstock_scheduler.registering import Registrar
from penstock_scheduler.service import Scheduler
from penstock_scheduler.settings import SchedulerSettings
from penstock_scheduler.wakes import Wakes
from penstock_servicekit.link import Link

_LAST_ROUND = 5.0
"""Seconds that the last round may take when the scheduler stops."""


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
    """The scheduler with a consumer for each shard; it asks those of the shards that it holds.

    One loop handles all shards: its load makes its batches.
    """

    def __init__(self, link: Link, settings: SchedulerSettings) -> None:
        self._link = link
        self._batch = settings.scheduler_batch
        log = NatsRunLog(link.bus, f"penstock/scheduler/{link.name}")
        versions = Versions(link.bus)
        store, sizes = BookStore(link.bus), Sizes(link.bus)
        self.limits = Limits(store, sizes, log, time.time)
        self._limits_check = LimitsCheck(link.bus, self.limits, store, sizes, versions, settings.scheduler_limits_check)
        registrar = Registrar(log, ModelLog(link.bus, f"penstock/scheduler/{link.name}"), link.park)
        outside = Outside(link.bus, log, versions, self.limits, registrar, time.time)
        self._wakes = Wakes(link.bus, outside)
        self._scheduler = Scheduler(log, versions, Edges(link), outside, keep=settings.scheduler_runs)
        self._inbox = Inbox()
        self._pullers = [
            Puller(link.bus, subjects.RUNS, subjects.scheduler_consumer(shard), self._inbox.put)
            for shard in range(ids.SHARDS)
        ]
        self._presence = Presence(link.bus, link.name, self._hold, link.log.info)
        self._suspect: set[int] = set()
        self._stopping = False
        self._pulls: list[asyncio.Task[None]] = []
        self._loops: list[asyncio.Task[None]] = []
        self._catching_up: asyncio.Task[None] | None = None
        subscribers.register(link, self._presence)

    async def start(self) -> None:
        """Begin to pull and decide."""
        # Other replicas answer this while the horizon is read, so that what is theirs is not asked for.
        await self._presence.hello()
        await self._set_horizon()
        await self._limits_check.start()
        self._link.bus.on_reconnect(self._reconnected)
        await self._presence.open()
        self._pulls = [self._link.task(puller.run()) for puller in (*self._pullers, self._wakes.puller)]
        check = self._limits_check.run(self._link.log.warning, time.time)
        self._loops = [self._link.task(loop) for loop in (self._work(), self._presence.run(), self._wakes.run(), check)]

    async def stop(self) -> None:
        """Finish what was delivered, then leave the shards to the others; the rest comes to them after its wait."""
        self._stopping = True
        await _end(self._pulls)
        self._inbox.wake()
        if self._loops:
            await asyncio.wait(self._loops[:1], timeout=_LAST_ROUND)
        await self._presence.close()
        await _end(self._loops)
        await self.limits.stop()
        with contextlib.suppress(Exception):
            await self._limits_check.close()

    def ready(self) -> bool:
        """Whether the loops run."""
        tasks = self._pulls + self._loops
        return bool(tasks) and not any(task.done() for task in tasks)

    def about(self) -> dict[str, Any]:
        """Who lives and holds which shards, as this replica has heard."""
        return {
            "replica": self._link.name,
            "shards": sorted(self._presence.held),
            "replicas": {replica.name: replica.shards for replica in self._presence.report().replicas},
        }

    def _hold(self, shards: frozenset[int]) -> None:
        for shard, puller in enumerate(self._pullers):
            puller.want(self._batch if shard in shards else 0)
        self._inbox.wake()  # to forget the runs of shards that went to others

    async def _set_horizon(self) -> None:
        info = await self._link.bus.api(f"STREAM.INFO.{subjects.RUNS}")
        self._scheduler.horizon = int(info["state"]["last_seq"])

    def _reconnected(self) -> None:
        """What the server has counted as delivered may be less than it was: trust nothing until it is known."""
        self._scheduler.horizon = sys.maxsize
        # Nor do the consumers' sequences tell any more whether another replica was served meanwhile.
        self._suspect.update(range(ids.SHARDS))
        self._catching_up = asyncio.create_task(self._catch_up())

    async def _catch_up(self) -> None:
        await self._presence.reconnected()
        while True:
            try:
                await self._set_horizon()
                return
            except Unavailable:
                await asyncio.sleep(0.5)

    async def _work(self) -> None:
        while True:
            deliveries = await self._inbox.take()
            if self._stopping and not deliveries:
                return
            self._scheduler.forget(self._suspect)
            self._suspect.clear()
            try:
                await self._scheduler.handle(deliveries)
            except Exception:
                # A fault of ours must not stop the others' runs: the messages come again after their wait.
                self._link.log.exception("a round failed", facts=len(deliveries))
                await asyncio.sleep(0.5)
            self._scheduler.forget(set(range(ids.SHARDS)) - self._presence.held)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel and wait; more than once, since a cancellation may be lost in a library. Failures were told before."""
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=1.0)


def build(link: Link, settings: SchedulerSettings) -> SchedulerService:
    """Put the scheduler together."""
    return SchedulerService(link, settings)
