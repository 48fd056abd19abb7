"""Composition root of the cron service, and its ports on NATS."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pydantic

from penstock_adapters.nats.consumer import Delivery
from penstock_adapters.nats.deployment_log import DeploymentLog
from penstock_adapters.nats.event_stream import EventStream
from penstock_contracts import subjects
from penstock_contracts.commands import Tick
from penstock_core.deployments.events import Event
from penstock_core.deployments.state import Deployment
from penstock_cron.service import CronService, Name
from penstock_cron.settings import CronSettings
from penstock_servicekit.durable_worker import DurableWorker
from penstock_servicekit.service_context import ServiceContext, cancel

_RETRY = 1.0


class NatsEdges:
    """The ports of the cron service on NATS. Timers are scheduled messages of the broker (NATS ADR-51)."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context
        self._log = DeploymentLog(context.bus, f"penstock/cron/{context.name}")
        self._events = EventStream(context.bus)

    async def deployment(self, project: str, name: str) -> Deployment:
        """See `Edges`."""
        return await self._log.get(project, name)

    async def deployments(self) -> dict[Name, Deployment]:
        """See `Edges`."""
        return await self._log.all()

    async def armed(self, name: Name | None = None) -> list[Tick]:
        """See `Edges`."""
        pattern = subjects.armed(*name) if name else subjects.armed("*", "*")
        found: list[Tick] = []
        for message in await self._context.bus.read(subjects.TIMERS, pattern):
            with contextlib.suppress(pydantic.ValidationError):
                found.append(Tick.model_validate_json(message.data))
        return found

    async def arm(self, tick: Tick, at: float) -> None:
        """See `Edges`."""
        headers = {
            # A timer must not fire early by the rounding to milliseconds.
            "Nats-Schedule": f"@at {subjects.rfc3339(int(at * 1000) + 1)}",
            "Nats-Schedule-Target": subjects.tick(tick.project, tick.deployment, tick.trigger),
            "Nats-Rollup": "sub",
        }
        place = subjects.armed(tick.project, tick.deployment, tick.trigger)
        await self._context.bus.publish(place, tick.model_dump_json().encode(), headers)

    async def disarm(self, tick: Tick) -> None:
        """See `Edges`."""
        place = subjects.armed(tick.project, tick.deployment, tick.trigger)
        await self._context.bus.api(f"STREAM.PURGE.{subjects.TIMERS}", {"filter": place})

    async def publish(self, event: Event) -> None:
        """See `Edges`."""
        _, duplicate = await self._events.publish(event)
        if not duplicate:
            self._context.log.info("tick", deployment=event.subject, at=event.time)

    async def refuse(self, subject: str, body: bytes, why: str) -> None:
        """See `Edges`."""
        await self._context.park(subject, body, why)


class CronApp:
    """The cron service: a worker for ticks, one for changes of deployments, and a periodic check that all are armed.

    They take turns: ticks, changes and checks are handled one at a time.
    """

    def __init__(self, context: ServiceContext, settings: CronSettings) -> None:
        self._context = context
        self._interval = settings.cron_check
        self._service = CronService(NatsEdges(context), time.time)
        self._workers = [
            DurableWorker(context, subjects.TIMERS, subjects.CRON_CONSUMER, self._on_tick),
            DurableWorker(context, subjects.DEPLOYMENTS, subjects.CRON_CONSUMER, self._on_change),
        ]
        self._turn = asyncio.Lock()
        self._check_due = asyncio.Event()
        self._check_task: asyncio.Task[None] | None = None
        context.bus.on_reconnect(self._check_due.set)

    async def start(self) -> None:
        """Start the workers, and arm the triggers that are not armed."""
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
        parsed = subjects.parse_deployment_subject(delivery.subject)
        if parsed is not None:
            async with self._turn:
                await self._service.rearm(parsed[0], parsed[1])

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
                    "check of cron triggers failed, will be retried", error=str(error), exc_info=error
                )
                delay = _RETRY


def build(context: ServiceContext, settings: CronSettings) -> CronApp:
    """Wire the cron service."""
    return CronApp(context, settings)
