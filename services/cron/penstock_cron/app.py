"""Composition root of the cron service."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from datetime import UTC, datetime

import orjson
import pydantic

from penstock_adapters.nats.buckets.kv import Bucket, Entry
from penstock_adapters.nats.buckets.limits import LimitSizes
from penstock_adapters.nats.buckets.versions import Versions
from penstock_adapters.nats.consumer import Delivery
from penstock_adapters.nats.model_log import ModelLog
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_contracts import subjects
from penstock_contracts.commands import Tick, Version
from penstock_core.errors import PenstockError
from penstock_core.facts import RunRequested
from penstock_core.pipeline.values import ArtifactRef
from penstock_cron.service import CronService
from penstock_cron.settings import CronSettings
from penstock_servicekit.durable_worker import DurableWorker
from penstock_servicekit.service_context import ServiceContext, cancel

_SCHEDULES = f"KV_{subjects.SCHEDULES_BUCKET}"
_CHANGED = f"$KV.{subjects.SCHEDULES_BUCKET}."
_RETRY = 1.0


class NatsEdges:
    """The ports of the cron service on NATS. Timers are scheduled messages of the broker (NATS ADR-51)."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context
        self._schedules = Bucket(context.bus, subjects.SCHEDULES_BUCKET)
        self._versions = Versions(context.bus)
        self._limits = LimitSizes(context.bus)
        self._models = ModelLog(context.bus, f"penstock/cron/{context.name}")
        self._log = NatsRunLog(context.bus, f"penstock/cron/{context.name}")

    async def schedule(self, name: str) -> Entry | None:
        """See `Edges`."""
        return await self._schedules.get_fresh(name)

    async def schedules(self) -> list[Entry]:
        """See `Edges`."""
        return await self._schedules.list()

    async def armed(self, name: str) -> Tick | None:
        """See `Edges`."""
        query = orjson.dumps({"last_by_subj": f"armed.{name}"})
        message = await self._context.bus.request(f"$JS.API.DIRECT.GET.{subjects.TIMERS}", query)
        if "Nats-Sequence" not in (message.headers or {}):
            return None
        try:
            return Tick.model_validate_json(message.data)
        except pydantic.ValidationError:
            return None

    async def arm(self, tick: Tick) -> None:
        """See `Edges`."""
        at = datetime.fromtimestamp(tick.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        headers = {
            "Nats-Schedule": f"@at {at}",
            "Nats-Schedule-Target": f"ticks.{tick.schedule}",
            "Nats-Rollup": "sub",
        }
        await self._context.bus.publish(f"armed.{tick.schedule}", tick.model_dump_json().encode(), headers)

    async def disarm(self, name: str) -> None:
        """See `Edges`."""
        await self._context.bus.api(f"STREAM.PURGE.{subjects.TIMERS}", {"filter": f"armed.{name}"})

    async def version(self, project: str, pipeline: str, version: int | None) -> Version | None:
        """See `Edges`."""
        number = version if version is not None else await self._versions.latest(project, pipeline)
        return None if number is None else await self._versions.get(project, pipeline, number)

    async def models(self, project: str, names: Mapping[str, str]) -> dict[str, ArtifactRef | PenstockError]:
        """See `Edges`."""
        return await self._models.resolve(project, names)

    async def limited_pools(self) -> frozenset[str]:
        """See `Edges`."""
        return await self._limits.limited_pools()

    async def request(self, run: RunRequested) -> bool:
        """See `Edges`."""
        written = (await self._log.append([run]))[0]
        self._context.log.info("tick", run=run.run_id, pipeline=run.pipeline, schedule=run.trigger["schedule"])
        return written

    async def refuse(self, subject: str, body: bytes, why: str) -> None:
        """See `Edges`."""
        await self._context.park(subject, body, why)


class CronApp:
    """The cron service: a worker for ticks, one for changes of schedules, and a periodic check that all are armed.

    They take turns: ticks, changes and checks are handled one at a time.
    """

    def __init__(self, context: ServiceContext, settings: CronSettings) -> None:
        self._context = context
        self._interval = settings.cron_check
        self._service = CronService(NatsEdges(context), time.time)
        self._workers = [
            DurableWorker(context, subjects.TIMERS, subjects.CRON_CONSUMER, self._on_tick),
            DurableWorker(context, _SCHEDULES, subjects.CRON_CONSUMER, self._on_change),
        ]
        self._turn = asyncio.Lock()
        self._check_due = asyncio.Event()
        self._check_task: asyncio.Task[None] | None = None
        context.bus.on_reconnect(self._check_due.set)

    async def start(self) -> None:
        """Start the workers, and arm the schedules that are not armed."""
        self._check_task = self._context.task(self._check())
        for worker in self._workers:
            worker.start()

    async def stop(self) -> None:
        """Stop. A tick that was not acknowledged is delivered again."""
        for worker in self._workers:
            await worker.stop()
        if self._check_task is not None:
            await cancel([self._check_task])

    def ready(self) -> bool:
        """Return whether the loops run."""
        return self._check_task is not None and not self._check_task.done() and all(w.ready() for w in self._workers)

    async def _on_tick(self, delivery: Delivery) -> None:
        async with self._turn:
            await self._service.tick(delivery.data)

    async def _on_change(self, delivery: Delivery) -> None:
        async with self._turn:
            await self._service.rearm(delivery.subject.removeprefix(_CHANGED))

    async def _check(self) -> None:
        """Arm what is not armed: at start, after a reconnection, and periodically, whatever went wrong before."""
        delay = 0.0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._check_due.wait()
            self._check_due.clear()
            try:
                async with self._turn:
                    await self._service.arm_all()
                delay = self._interval
            except Exception as error:
                self._context.log.warning(
                    "check of schedules failed, will be retried", error=str(error), exc_info=error
                )
                delay = _RETRY


def build(context: ServiceContext, settings: CronSettings) -> CronApp:
    """Wire the cron service."""
    return CronApp(context, settings)
