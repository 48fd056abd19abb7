"""Composition root of the executor."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from prometheus_client import Gauge

from penstock_adapters.nats.bus import BusError
from penstock_adapters.nats.consumer import Puller
from penstock_adapters.nats.deployment_log import DeploymentLog
from penstock_adapters.nats.model_log import ModelLog
from penstock_adapters.nats.run_log import from_direct
from penstock_adapters.process import ProcessExecutor, ProcessOptions, step_user
from penstock_contracts import subjects
from penstock_contracts.commands import Offer
from penstock_core.errors import UnavailableError
from penstock_core.facts import CancelRequested
from penstock_executor import machine, subscribers
from penstock_executor.endpoints.deployment_sources import DeploymentSources
from penstock_executor.endpoints.endpoint_service import EndpointService
from penstock_executor.lease import Lease
from penstock_executor.nats_platform import NatsPlatform
from penstock_executor.pod_platform import PodPlatform
from penstock_executor.service import ExecutorService
from penstock_executor.settings import ExecutorSettings
from penstock_servicekit.service_context import ServiceContext, cancel

_WARM_GRACE = 0.5
"""Seconds between SIGTERM and SIGKILL for a warm worker, whose request has failed already."""

_ATTEMPTS = Gauge("penstock_executor_attempts", "Attempts that run here, or are about to.")
_SLOTS = Gauge("penstock_executor_slots", "Attempts that can run here at the same time.")

_EXTENSIONS_PER_CHECK = 5
"""Extensions of deliveries between two checks of the log for attempts that others ended: about ten seconds."""


class ExecutorApp:
    """The executor with its consumer, its adapter and its periodic tasks."""

    def __init__(self, context: ServiceContext, settings: ExecutorSettings) -> None:
        self._context = context
        self._settings = settings
        in_pods = settings.executor == "argo"
        self._platform = PodPlatform(context, settings) if in_pods else NatsPlatform(context, settings)
        self._puller = Puller(
            context.bus,
            subjects.RUNS,
            subjects.attempts_consumer(settings.pool),
            lambda delivery: self._service.receive(delivery),
            self._reconnected,
        )
        self._service = ExecutorService(
            context.name,
            settings.slots,
            self._platform,
            self._puller.want,
            self._warn,
            look_ahead=settings.look_ahead,
        )
        _ATTEMPTS.set_function(lambda: self._service.active_count)
        _SLOTS.set(settings.slots)
        self._endpoints: EndpointService | None = None
        self._loops: list[Coroutine[Any, Any, None]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._catching_up: asyncio.Task[None] | None = None
        self._stopped = False
        subscribers.register(context.broker, self._service.cancel, self._service.kill)
        context.bus.on_reconnect(self._reconnected)

    def _warn(self, event: str, **about: Any) -> None:
        self._context.log.warning(event, **about)

    async def _start_adapter(self) -> None:
        """Start what runs attempts: processes of this machine, or pods. Warm workers are processes, too."""
        if isinstance(self._platform, PodPlatform):
            await self._start_argo(self._platform)
        else:
            self._start_processes()
            self._endpoints = self._endpoint_service()

    async def _start_argo(self, platform: PodPlatform) -> None:
        from penstock_executor import argo_adapter  # imports the client of Kubernetes

        platform.lease = self._lease("", lambda deadline: None, lambda: None)
        self._loops += await argo_adapter.start(self._context, self._settings, self._service, platform, self._warn)

    def _start_processes(self) -> None:
        settings = self._settings
        executor = ProcessExecutor(
            self._context.name,
            self._service,
            self._service,
            self._platform.prepare,
            settings.home,
            self._options(settings.grace),
            self._service.own,
        )
        self._service.use(executor)
        self._platform.lease = self._lease(executor.mark, executor.extend, executor.end_limited)

    def _lease(self, mark: str, renewed: Callable[[float], None], lost: Callable[[], None]) -> Lease:
        context = self._context
        duration, offer = self._settings.lease, self._offer()
        return Lease(context.bus, context.name, mark, duration, offer, self._service.has, renewed, lost, self._warn)

    def _offer(self) -> Offer:
        """What this executor offers to steps: of pods, the cluster decides."""
        settings = self._settings
        if isinstance(self._platform, PodPlatform):
            return Offer(pool=settings.pool, slots=settings.slots, pods=True)
        return Offer(
            pool=settings.pool,
            slots=settings.slots,
            cpu=machine.cores(),
            memory=machine.memory(),
            gpu=machine.gpus() if settings.gpus is None else settings.gpus,
        )

    def _endpoint_service(self) -> EndpointService:
        context, platform = self._context, self._platform
        source = f"penstock/executor/{context.name}"
        return EndpointService(
            context.bus,
            context.log,
            context.name,
            self._settings.pool,
            DeploymentLog(context.bus, source),
            DeploymentSources(platform.versions, ModelLog(context.bus, source), platform.mirror, platform.prepare),
            self._warm_adapter,
        )

    def _options(self, grace: float) -> ProcessOptions:
        settings = self._settings
        return ProcessOptions(
            env={"PENSTOCK_HOME": str(settings.home.resolve())},
            grace=grace,
            servers=settings.fork_servers,
            unsafe=settings.unsafe_allowed,
            user=step_user.find(settings.step_user) if settings.step_user else None,
        )

    def _warm_adapter(self, endpoints: EndpointService) -> ProcessExecutor:
        """The adapter of the warm workers, which has fork servers of its own."""
        options = self._options(_WARM_GRACE)
        return ProcessExecutor(
            self._context.name, endpoints, endpoints, endpoints.prepare, self._settings.home, options
        )

    async def start(self) -> None:
        """Start to take attempts."""
        await self._start_adapter()
        await self._platform.lease.start()
        await self._catch_up()
        loops = [self._platform.appender.run(), self._platform.publisher.run(), self._puller.run(), self._extend()]
        loops += [self._platform.lease.run(), *self._loops]
        if self._endpoints is not None:
            await self._endpoints.start()
            loops.append(self._endpoints.run())
        self._tasks = [self._context.task(loop) for loop in loops]
        self._service.open()
        self._context.log.info("executor ready", pool=self._settings.pool, slots=self._settings.slots)

    async def stop(self) -> None:
        """Finish or hand back the attempts in flight."""
        self._stopped = True
        parts = [part for part in (self._service, self._endpoints) if part is not None]
        await asyncio.gather(*(part.stop(self._settings.drain) for part in parts))
        await cancel(self._tasks)
        await self._platform.lease.release()
        self._platform.installed.release()

    def about(self) -> dict[str, Any]:
        """Status details.

        `shortages` is how often the machine had run out of something for an attempt, `workers` the warm workers.
        """
        counts = {"attempts": self._service.active_count, "shortages": self._service.shortages}
        return counts | (self._endpoints.about() if self._endpoints is not None else {})

    def ready(self) -> bool:
        """Whether the loops run."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    async def _extend(self) -> None:
        while True:
            for _ in range(_EXTENSIONS_PER_CHECK):
                await asyncio.sleep(self._settings.ack_wait / 3)
                await self._service.extend_deliveries()
            with contextlib.suppress(UnavailableError, BusError):  # checked again later
                await self._service.find_ended_attempts()

    def _reconnected(self) -> None:
        if not self._stopped:
            # The server may have lost its count of deliveries: treat each one as repeated until the horizon is known.
            self._service.horizon = sys.maxsize
            if self._catching_up is None or self._catching_up.done():
                self._catching_up = asyncio.create_task(self._catch_up_later())

    async def _catch_up_later(self) -> None:
        while not self._stopped:
            try:
                await self._catch_up()
                return
            except (UnavailableError, BusError) as error:
                self._context.log.warning("catch-up failed, will be retried", error=str(error))
                await asyncio.sleep(0.5)

    async def _catch_up(self) -> None:
        """Read up to where deliveries may be repeated, and which runs were cancelled while this executor was away."""
        info = await self._context.bus.api(f"STREAM.INFO.{subjects.RUNS}")
        self._service.horizon = int(info["state"]["last_seq"])
        for message in await self._context.bus.read(subjects.RUNS, "runs.*.*.cancel"):
            recorded = from_direct(message)
            if recorded is not None and isinstance(recorded.fact, CancelRequested):
                await self._service.cancel(recorded.fact.run_id, recorded.fact.reason)


def build(context: ServiceContext, settings: ExecutorSettings) -> ExecutorApp:
    """Build the executor."""
    settings.home.mkdir(parents=True, exist_ok=True)
    return ExecutorApp(context, settings)
