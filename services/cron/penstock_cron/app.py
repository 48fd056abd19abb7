"""Composition root of the cron service."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from datetime import UTC, datetime

import orjson
import pydantic

from penstock_adapters.nats import consumer
from penstock_adapters.nats.buckets.kv import Bucket, Entry
from penstock_adapters.nats.buckets.versions import Versions
from penstock_adapters.nats.bus import BusError
from penstock_adapters.nats.consumer import Delivery, Puller
from penstock_adapters.nats.model_log import ModelLog
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_contracts import subjects
from penstock_contracts.commands import Tick, Version
from penstock_core.facts import RunRequested
from penstock_core.pipeline.values import ArtifactRef
from penstock_core.ports import UnavailableError
from penstock_core.registry.references import Reference
from penstock_cron.service import CronService
from penstock_cron.settings import CronSettings
from penstock_servicekit.service_context import ServiceContext

_CHANGED = f"$KV.{subjects.SCHEDULES_BUCKET}."


class NatsEdges:
    """The cron service's surroundings on NATS. Timers are message schedules of the broker (NATS ADR-51)."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context
        self._schedules = Bucket(context.bus, subjects.SCHEDULES_BUCKET)
        self._versions = Versions(context.bus)
        self._models = ModelLog(context.bus, f"penstock/cron/{context.name}")
        self._log = NatsRunLog(context.bus, f"penstock/cron/{context.name}")

    async def schedule(self, name: str) -> Entry | None:
        """See the protocol."""
        return await self._schedules.get_fresh(name)

    async def schedules(self) -> list[Entry]:
        """See the protocol."""
        return await self._schedules.list()

    async def armed(self, name: str) -> Tick | None:
        """See the protocol."""
        query = orjson.dumps({"last_by_subj": f"armed.{name}"})
        message = await self._context.bus.request(f"$JS.API.DIRECT.GET.{subjects.TIMERS}", query)
        if "Nats-Sequence" not in (message.headers or {}):
            return None
        try:
            return Tick.model_validate_json(message.data)
        except pydantic.ValidationError:
            return None

    async def arm(self, tick: Tick) -> None:
        """See the protocol."""
        at = datetime.fromtimestamp(tick.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        headers = {
            "Nats-Schedule": f"@at {at}",
            "Nats-Schedule-Target": f"ticks.{tick.schedule}",
            "Nats-Rollup": "sub",
        }
        await self._context.bus.publish(f"armed.{tick.schedule}", tick.model_dump_json().encode(), headers)

    async def disarm(self, name: str) -> None:
        """See the protocol."""
        await self._context.bus.api(f"STREAM.PURGE.{subjects.TIMERS}", {"filter": f"armed.{name}"})

    async def version(self, project: str, pipeline: str, version: int | None) -> Version | None:
        """See the protocol."""
        number = version if version is not None else await self._versions.latest(project, pipeline)
        return None if number is None else await self._versions.get(project, pipeline, number)

    async def model(self, project: str, reference: Reference) -> ArtifactRef:
        """See the protocol."""
        return (await self._models.get(project, reference.model)).find(reference).artifact

    async def request(self, run: RunRequested) -> bool:
        """See the protocol."""
        written = (await self._log.append([run]))[0]
        self._context.log.info("tick", run=run.run_id, pipeline=run.pipeline, schedule=run.trigger["schedule"])
        return written

    async def refuse(self, subject: str, body: bytes, why: str) -> None:
        """See the protocol."""
        await self._context.park(subject, body, why)


class CronApp:
    """The cron service with its consumers: of ticks, and of the changes of schedules."""

    def __init__(self, context: ServiceContext, settings: CronSettings) -> None:
        self._context = context
        self._pause = settings.cron_check
        self._service = CronService(NatsEdges(context), time.time)
        streams = (subjects.TIMERS, f"KV_{subjects.SCHEDULES_BUCKET}")
        self._work: asyncio.Queue[Delivery | None] = asyncio.Queue()
        self._pullers = [
            Puller(context.bus, stream, subjects.CRON_CONSUMER, self._work.put_nowait) for stream in streams
        ]
        self._looking = False
        self._tasks: list[asyncio.Task[None]] = []
        context.bus.on_reconnect(self._look)

    async def start(self) -> None:
        """Begin to take ticks and changes, and arm what is not armed."""
        loops = [self._check(), self._loop()]
        for puller in self._pullers:
            puller.want(100)
            loops.append(puller.run())
        self._tasks = [asyncio.create_task(loop) for loop in loops]

    async def stop(self) -> None:
        """Stop; an unacknowledged tick comes again."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def ready(self) -> bool:
        """Whether the loops run."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    async def _check(self) -> None:
        """The safety net: whatever went wrong before, schedules are armed within a while."""
        while True:
            self._look()
            await asyncio.sleep(self._pause)

    def _look(self) -> None:
        """Have all schedules looked at; asked for twice, once is enough."""
        if not self._looking:
            self._looking = True
            self._work.put_nowait(None)

    async def _loop(self) -> None:
        """One thing after the other: a tick, the change of a schedule, or None for a look at all schedules."""
        while True:
            item = await self._work.get()
            try:
                if item is None:
                    self._looking = False
                    await self._service.arm_all()
                    continue
                if item.subject.startswith(_CHANGED):
                    await self._service.settle(item.subject.removeprefix(_CHANGED))
                else:
                    await self._service.tick(item.data)
                await consumer.ack(self._context.bus, item)
            except Exception as error:
                passing = isinstance(error, UnavailableError | BusError)
                self._context.log.log(
                    logging.WARNING if passing else logging.ERROR,
                    "tried again",
                    subject=item.subject if item else None,
                    error=str(error),
                    exc_info=not passing,
                )
                if item is None:
                    asyncio.get_running_loop().call_later(1.0, self._look)
                else:
                    await consumer.nak(self._context.bus, item, 1.0 if passing else 30.0)


def build(context: ServiceContext, settings: CronSettings) -> CronApp:
    """Put the cron service together."""
    return CronApp(context, settings)
