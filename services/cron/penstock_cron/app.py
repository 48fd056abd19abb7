"""Composition root of the cron service."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import UTC, datetime

import orjson
import pydantic

from penstock_adapters.nats import consumer
from penstock_adapters.nats.bus import BusError
from penstock_adapters.nats.consumer import Delivery, Puller
from penstock_adapters.nats.kv import Bucket, Entry
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_adapters.nats.versions import Versions
from penstock_contracts import subjects
from penstock_contracts.commands import Tick, Version
from penstock_core.facts import RunRequested
from penstock_core.ports import Unavailable
from penstock_cron import subscribers
from penstock_cron.service import CronService
from penstock_cron.settings import CronSettings
from penstock_servicekit.link import Link


class NatsEdges:
    """The cron service's surroundings on NATS. Timers are message schedules of the broker (NATS ADR-51)."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._schedules = Bucket(link.bus, subjects.SCHEDULES_BUCKET)
        self._versions = Versions(link.bus)
        self._log = NatsRunLog(link.bus, f"penstock/cron/{link.name}")

    async def schedule(self, name: str) -> Entry | None:
        """See the protocol."""
        return await self._schedules.get(name)

    async def schedules(self) -> list[Entry]:
        """See the protocol."""
        return await self._schedules.list()

    async def armed(self, name: str) -> Tick | None:
        """See the protocol."""
        query = orjson.dumps({"last_by_subj": f"armed.{name}"})
        message = await self._link.bus.request(f"$JS.API.DIRECT.GET.{subjects.TIMERS}", query)
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
        await self._link.bus.publish(f"armed.{tick.schedule}", tick.model_dump_json().encode(), headers)

    async def disarm(self, name: str) -> None:
        """See the protocol."""
        await self._link.bus.api(f"STREAM.PURGE.{subjects.TIMERS}", {"filter": f"armed.{name}"})

    async def version(self, project: str, pipeline: str, version: int | None) -> Version | None:
        """See the protocol."""
        number = version if version is not None else await self._versions.latest(project, pipeline)
        return None if number is None else await self._versions.get(project, pipeline, number)

    async def request(self, run: RunRequested) -> bool:
        """See the protocol."""
        written = (await self._log.append([run]))[0]
        self._link.log.info("tick", run=run.run_id, pipeline=run.pipeline, schedule=run.trigger["schedule"])
        return written

    async def refuse(self, subject: str, body: bytes, why: str) -> None:
        """See the protocol."""
        await self._link.park(subject, body, why)


class CronApp:
    """The cron service with its consumer."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._service = CronService(NatsEdges(link), time.time)
        self._puller = Puller(link.bus, subjects.TIMERS, "cron", self._receive)
        self._work: asyncio.Queue[Delivery | str | None] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        subscribers.register(link.broker, self._work.put_nowait)
        link.bus.on_reconnect(lambda: self._work.put_nowait(None))

    async def start(self) -> None:
        """Arm what is not armed and begin to take ticks."""
        self._puller.want(100)
        self._work.put_nowait(None)
        self._tasks = [asyncio.create_task(self._puller.run()), asyncio.create_task(self._loop())]

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

    def _receive(self, delivery: Delivery) -> None:
        self._work.put_nowait(delivery)

    async def _loop(self) -> None:
        """One thing after the other: a tick, the name of a schedule that changed, or None for all schedules."""
        while True:
            item = await self._work.get()
            try:
                if isinstance(item, Delivery):
                    await self._service.tick(item.data)
                    await consumer.ack(self._link.bus, item)
                elif item is None:
                    await self._service.arm_all()
                else:
                    await self._service.changed(item)
            except (Unavailable, BusError) as error:
                self._link.log.warning("tried again", what=str(item)[:100], error=str(error))
                if isinstance(item, Delivery):
                    await consumer.nak(self._link.bus, item, 1.0)
                else:
                    asyncio.get_running_loop().call_later(1.0, self._work.put_nowait, item)
            except Exception:
                self._link.log.exception("a tick failed", what=str(item)[:100])
                if isinstance(item, Delivery):
                    await consumer.nak(self._link.bus, item, 30.0)


def build(link: Link, settings: CronSettings) -> CronApp:
    """Put the cron service together."""
    del settings
    return CronApp(link)
