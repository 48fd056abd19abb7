"""Composition root of the executor."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

from penstock_adapters.mirror import Mirror
from penstock_adapters.nats import consumer
from penstock_adapters.nats.appender import Appender
from penstock_adapters.nats.archived_log import ArchivedLog, Archives
from penstock_adapters.nats.buckets.kv import Bucket
from penstock_adapters.nats.buckets.versions import Versions
from penstock_adapters.nats.bus import BusError
from penstock_adapters.nats.consumer import Delivery, Puller
from penstock_adapters.nats.deployment_log import DeploymentLog
from penstock_adapters.nats.model_log import ModelLog
from penstock_adapters.nats.run_log import from_direct
from penstock_adapters.process import AttemptEnvironment, ProcessExecutor, ProcessOptions, step_user
from penstock_contracts import fact_codec, subjects
from penstock_core.errors import UnavailableError
from penstock_core.facts import (
    ArtifactCommitted,
    AttemptFinished,
    AttemptRequested,
    AttemptStarted,
    CacheReport,
    CacheRule,
    CancelRequested,
    Fact,
)
from penstock_core.ownership import OwnerStatus
from penstock_core.pipeline.values import Stored
from penstock_core.ports import Recorded
from penstock_core.shipping.commits import CommitPublisher
from penstock_core.shipping.messages import AttemptKey, Message
from penstock_core.shipping.publisher import MessagePublisher
from penstock_executor import subscribers
from penstock_executor.cache import CacheLookup, ResultCache
from penstock_executor.checkpoints import latest_checkpoint
from penstock_executor.endpoints.deployment_sources import DeploymentSources
from penstock_executor.endpoints.endpoint_service import EndpointService
from penstock_executor.interpreters import Interpreters
from penstock_executor.lease import Lease
from penstock_executor.service import ExecutorService
from penstock_executor.settings import ExecutorSettings
from penstock_executor.sources import Sources
from penstock_servicekit.service_context import ServiceContext, cancel

_WARM_GRACE = 0.5
"""Seconds between SIGTERM and SIGKILL for a warm worker, whose request has failed already."""

_EXTENSIONS_PER_CHECK = 5
"""Extensions of deliveries between two checks of the log for attempts that others ended: about ten seconds."""


class NatsPlatform:
    """Implements `Platform` on NATS and the artifact store."""

    lease: Lease

    def __init__(self, context: ServiceContext, settings: ExecutorSettings) -> None:
        self._context = context
        self.mirror = Mirror(context.bus, settings.home)
        # Resumed runs and child runs read results of runs that may be archived.
        self._log = ArchivedLog(context.bus, f"penstock/executor/{context.name}", Archives(self.mirror.opened))
        self.appender = Appender(
            self._log, lambda error: context.log.warning("append failed, will be retried", error=str(error))
        )
        self.publisher = MessagePublisher(self._publish, context.log.warning)
        self._commits = CommitPublisher(self.appender.submit, self.mirror.put, context.log.warning)
        self._cache = ResultCache(
            Bucket(context.bus, subjects.CACHE_BUCKET), self.mirror.missing, self.facts, context.log.warning
        )
        self.versions = versions = Versions(context.bus)
        interpreters = Interpreters(versions.interpreters, [sys.executable, *settings.interpreters()])
        self._sources = Sources(settings.home, versions, self.mirror.local_file, interpreters)

    def submit(self, fact: Fact) -> asyncio.Future[bool]:
        """See the protocol."""
        return self.appender.submit(fact)

    async def facts(self, subjects: list[str]) -> dict[str, Recorded]:
        """See the protocol."""
        return await self._log.last(subjects)

    async def latest(self, subject: str) -> Fact | None:
        """See the protocol."""
        message = await self._context.bus.last(subjects.RUNS, subject)
        return fact_codec.read(subject, message.data) if message is not None else None

    @property
    def fence(self) -> int:
        """See the protocol."""
        return self.lease.fence

    async def owner_status(self, started: AttemptStarted) -> OwnerStatus:
        """See the protocol."""
        return await self.lease.owner_status(started)

    async def others(self, attempt: AttemptKey) -> list[OwnerStatus]:
        """See the protocol."""
        return await self.lease.others(attempt)

    async def ack(self, delivery: Delivery) -> None:
        """See the protocol."""
        await consumer.ack(self._context.bus, delivery)

    async def return_delivery(self, delivery: Delivery, delay: float) -> None:
        """See the protocol."""
        await consumer.nak(self._context.bus, delivery, delay)

    async def extend(self, delivery: Delivery) -> None:
        """See the protocol."""
        await consumer.in_progress(self._context.bus, delivery)

    async def park(self, delivery: Delivery, error: str) -> None:
        """See the protocol."""
        await self._context.park(delivery.subject, delivery.data, error, delivery.stream_seq)

    async def look_up(self, attempt: AttemptRequested, rule: CacheRule) -> CacheLookup:
        """See the protocol."""
        return await self._cache.look_up(attempt, rule, *await self._sources.digests(attempt))

    async def store_result(self, attempt: AttemptRequested, report: CacheReport, end: AttemptFinished) -> CacheReport:
        """See the protocol."""
        return await self._cache.keep(attempt, report, end)

    async def prepare(self, attempt: AttemptRequested) -> AttemptEnvironment:
        """Download the inputs, the source and the checkpoint of an attempt to this machine."""
        await self.mirror.fetch(attempt.inputs.values())
        where = await self._sources.workplace(attempt)
        checkpoint = await latest_checkpoint(attempt, self.facts, self.mirror.fetch, self._context.log.warning)
        root = str((await self.mirror.root()).resolve())
        return replace(where, artifacts=root, checkpoint=checkpoint, limit=await self.mirror.limit())

    async def publish_artifacts(self, end: AttemptFinished) -> None:
        """See the protocol."""
        models = [Stored(wanted.artifact) for wanted in end.models]
        await self.mirror.put([*end.outputs.values(), *end.artifacts.values(), *models])

    def commit(self, fact: ArtifactCommitted) -> None:
        """See the protocol."""
        self._commits.commit(fact)

    async def drain(self, attempt: AttemptKey) -> None:
        """See the protocol."""
        await self._commits.drain(attempt)

    def publish(self, message: Message) -> Awaitable[None]:
        """See the protocol."""
        return self.publisher.submit(message)

    def replace(self, message: Message) -> None:
        """See the protocol."""
        self.publisher.replace(message)

    async def _publish(self, message: Message) -> None:
        headers = {"Nats-Msg-Id": message.message_id} | ({"Nats-Rollup": "sub"} if message.latest else {})
        await self._context.bus.publish(message.subject, message.body, headers)

    def forget(self, attempt: AttemptKey) -> None:
        """See the protocol."""
        self._commits.forget(attempt)


class ExecutorApp:
    """The executor with its consumer, its adapter and its periodic tasks."""

    def __init__(self, context: ServiceContext, settings: ExecutorSettings) -> None:
        self._context = context
        self._settings = settings
        self._platform = NatsPlatform(context, settings)
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
            lambda event, **kw: context.log.warning(event, **kw),
            look_ahead=settings.look_ahead,
        )
        self._executor = ProcessExecutor(
            context.name,
            self._service,
            self._service,
            self._platform.prepare,
            settings.home,
            self._options(settings.grace),
            self._service.own,
        )
        self._service.use(self._executor)
        self._platform.lease = Lease(
            context.bus,
            context.name,
            self._executor.mark,
            settings.lease,
            self._service.has,
            self._executor.extend,
            self._executor.end_limited,
            lambda event, **kw: context.log.warning(event, **kw),
        )
        source = f"penstock/executor/{context.name}"
        self._endpoints = EndpointService(
            context.bus,
            context.log,
            context.name,
            settings.pool,
            DeploymentLog(context.bus, source),
            DeploymentSources(
                self._platform.versions,
                ModelLog(context.bus, source),
                self._platform.mirror,
                self._platform.prepare,
            ),
            self._warm_adapter,
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._catching_up: asyncio.Task[None] | None = None
        self._stopped = False
        subscribers.register(context.broker, self._service.cancel, self._service.kill)
        context.bus.on_reconnect(self._reconnected)

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
        await self._platform.lease.start()
        await self._catch_up()
        loops = [self._platform.appender.run(), self._platform.publisher.run(), self._puller.run(), self._extend()]
        loops.append(self._platform.lease.run())
        await self._endpoints.start()
        loops.append(self._endpoints.run())
        self._tasks = [self._context.task(loop) for loop in loops]
        self._service.open()
        self._context.log.info("executor ready", pool=self._settings.pool, slots=self._settings.slots)

    async def stop(self) -> None:
        """Finish or hand back the attempts in flight."""
        self._stopped = True
        await asyncio.gather(self._service.stop(self._settings.drain), self._endpoints.stop(self._settings.drain))
        await cancel(self._tasks)
        await self._platform.lease.release()

    def about(self) -> dict[str, Any]:
        """Status details.

        `shortages` is how often the machine had run out of something for an attempt, `workers` the warm workers.
        """
        counts = {"attempts": self._service.active_count, "shortages": self._service.shortages}
        return counts | self._endpoints.about()

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
