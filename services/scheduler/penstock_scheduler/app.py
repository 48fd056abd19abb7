"""Composition root of the scheduler."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from typing import Any

from prometheus_client import Gauge

from penstock_adapters.nats import consumer
from penstock_adapters.nats.bootstrap import EVENT_RETENTION
from penstock_adapters.nats.buckets.limits import LimitSizes, LimitsStore
from penstock_adapters.nats.buckets.versions import Versions
from penstock_adapters.nats.consumer import Delivery, Puller
from penstock_adapters.nats.event_stream import EventStream
from penstock_adapters.nats.model_log import ModelLog
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_contracts import subjects
from penstock_core import ids
from penstock_core.errors import UnavailableError
from penstock_scheduler import subscribers
from penstock_scheduler.effect_handlers import EffectHandlers
from penstock_scheduler.inbox import Inbox
from penstock_scheduler.limits import Limits
from penstock_scheduler.limits_reconciler import LimitsReconciler
from penstock_scheduler.membership import ReplicaPresence
from penstock_scheduler.model_registration import Registrar
from penstock_scheduler.run_timers import timer_worker
from penstock_scheduler.service import Scheduler
from penstock_scheduler.settings import SchedulerSettings
from penstock_scheduler.step_events import StepEvents
from penstock_servicekit.service_context import ServiceContext, cancel

_SHARDS = Gauge("penstock_scheduler_shards", "Shards of runs that this replica decides on.")

_LAST_ROUND = 5.0
"""Seconds for the last round when the scheduler stops."""


class Edges:
    """The scheduler's connections to NATS."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def ack(self, delivery: Delivery) -> None:
        """See the protocol."""
        await consumer.ack(self._context.bus, delivery)

    async def retry(self, delivery: Delivery, delay: float) -> None:
        """See the protocol."""
        await consumer.nak(self._context.bus, delivery, delay)

    async def park(self, delivery: Delivery, error: str) -> None:
        """See the protocol."""
        await self._context.park(delivery.subject, delivery.data, error, delivery.stream_seq)

    async def is_stored(self, delivery: Delivery) -> bool:
        """See the protocol."""
        return await self._context.bus.holds(subjects.RUNS, delivery.stream_seq)

    def warn(self, event: str, **details: object) -> None:
        """See the protocol."""
        self._context.log.warning(event, **details)


class SchedulerService:
    """The scheduler with a consumer for each shard; it pulls from those of its own shards.

    One loop handles all shards, in batches that grow with the load.
    """

    def __init__(self, context: ServiceContext, settings: SchedulerSettings) -> None:
        self._context = context
        self._batch = settings.scheduler_batch
        log = NatsRunLog(context.bus, f"penstock/scheduler/{context.name}")
        versions = Versions(context.bus)
        store, sizes = LimitsStore(context.bus), LimitSizes(context.bus)
        self.limits = Limits(store, sizes, log, time.time)
        self._limits_check = LimitsReconciler(
            context.bus, self.limits, store, sizes, versions, settings.scheduler_limits_check
        )
        models = ModelLog(context.bus, f"penstock/scheduler/{context.name}")
        registrar = Registrar(log, models, versions, context.park)
        step_events = StepEvents(log, EventStream(context.bus), context.park, EVENT_RETENTION, time.time)
        outside = EffectHandlers(context.bus, log, versions, models, self.limits, registrar, step_events, time.time)
        self._timers = timer_worker(context, outside)
        self._scheduler = Scheduler(log, versions, Edges(context), outside, keep=settings.scheduler_runs)
        self._inbox = Inbox()
        self._pullers = [
            Puller(context.bus, subjects.RUNS, subjects.scheduler_consumer(shard), self._inbox.put, self._reconnected)
            for shard in range(ids.SHARDS)
        ]
        self._presence = ReplicaPresence(context.bus, context.name, self._hold, context.log.info)
        self._suspect: set[int] = set()
        self._stopping = False
        self._pulls: list[asyncio.Task[None]] = []
        self._loops: list[asyncio.Task[None]] = []
        self._catching_up: asyncio.Task[None] | None = None
        subscribers.register(context, self._presence)
        _SHARDS.set_function(lambda: len(self._presence.held))

    async def start(self) -> None:
        """Start to pull and decide."""
        # Other replicas answer this while the horizon is read, so that their shards are not pulled.
        await self._presence.hello()
        await self._set_horizon()
        await self._limits_check.start()
        self._context.bus.on_reconnect(self._reconnected)
        await self._presence.open()
        self._pulls = [self._context.task(puller.run()) for puller in self._pullers]
        check = self._limits_check.run(self._context.log.warning, time.time)
        self._loops = [self._context.task(loop) for loop in (self._work(), self._presence.run(), check)]
        self._timers.start()

    async def stop(self) -> None:
        """Finish what was delivered, then release the shards. Unacknowledged messages go to their new owners."""
        self._stopping = True
        await cancel(self._pulls)
        self._inbox.wake()
        if self._loops:
            await asyncio.wait(self._loops[:1], timeout=_LAST_ROUND)
        await self._presence.close()
        await self._timers.stop()
        await cancel(self._loops)
        await self.limits.stop()
        with contextlib.suppress(Exception):
            await self._limits_check.close()

    def ready(self) -> bool:
        """Whether the loops run."""
        tasks = self._pulls + self._loops
        return bool(tasks) and not any(task.done() for task in tasks) and self._timers.ready()

    def about(self) -> dict[str, Any]:
        """Return the live replicas and their shards, as this replica knows them."""
        return {
            "replica": self._context.name,
            "shards": sorted(self._presence.held),
            "replicas": {replica.name: replica.shards for replica in self._presence.report().replicas},
        }

    def _hold(self, shards: frozenset[int]) -> None:
        for shard, puller in enumerate(self._pullers):
            puller.want(self._batch if shard in shards else 0)
        self._inbox.wake()  # to drop the runs of shards that others own now

    async def _set_horizon(self) -> None:
        info = await self._context.bus.api(f"STREAM.INFO.{subjects.RUNS}")
        self._scheduler.horizon = int(info["state"]["last_seq"])

    def _reconnected(self) -> None:
        """Trust no cached run until the horizon is known: the server may have lost what it counted as delivered."""
        self._scheduler.horizon = sys.maxsize
        # The consumers' sequences no longer show whether another replica was served in the meantime, either.
        self._suspect.update(range(ids.SHARDS))
        if self._catching_up is None or self._catching_up.done():
            self._catching_up = asyncio.create_task(self._catch_up())

    async def _catch_up(self) -> None:
        await self._presence.reconnected()
        while True:
            try:
                await self._set_horizon()
                return
            except UnavailableError:
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
                # A bug must not stop other runs: the messages are redelivered.
                self._context.log.exception("a round failed", facts=len(deliveries))
                await asyncio.sleep(0.5)
            self._scheduler.forget(set(range(ids.SHARDS)) - self._presence.held)


def build(context: ServiceContext, settings: SchedulerSettings) -> SchedulerService:
    """Build the scheduler."""
    return SchedulerService(context, settings)
