"""What the executor needs from the rest of the platform, on NATS and the artifact store."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Iterable
from dataclasses import replace

from penstock_adapters.mirror import Mirror
from penstock_adapters.nats import consumer
from penstock_adapters.nats.appender import Appender
from penstock_adapters.nats.archived_log import ArchivedLog, Archives
from penstock_adapters.nats.buckets.kv import Bucket
from penstock_adapters.nats.buckets.versions import Versions
from penstock_adapters.nats.consumer import Delivery
from penstock_adapters.process import AttemptEnvironment
from penstock_adapters.uv.virtual_environments import VirtualEnvironments
from penstock_contracts import fact_codec, subjects
from penstock_core.facts import (
    ArtifactCommitted,
    AttemptFinished,
    AttemptRequested,
    AttemptStarted,
    CacheReport,
    CacheRule,
    Fact,
)
from penstock_core.ownership import OwnerStatus
from penstock_core.pipeline.values import Stored, Value
from penstock_core.ports import Recorded
from penstock_core.shipping.commits import CommitPublisher
from penstock_core.shipping.messages import AttemptKey, Message
from penstock_core.shipping.publisher import MessagePublisher
from penstock_executor.cache import CacheLookup, ResultCache
from penstock_executor.checkpoints import latest_checkpoint
from penstock_executor.declared_environments import DeclaredEnvironments
from penstock_executor.interpreters import Interpreters
from penstock_executor.lease import Lease
from penstock_executor.settings import ExecutorSettings
from penstock_executor.sources import Sources
from penstock_executor.step_secrets import StepSecrets
from penstock_servicekit.secret_sources import open_secrets
from penstock_servicekit.service_context import ServiceContext


class NatsPlatform:
    """Implements `Platform` on NATS and the artifact store."""

    lease: Lease

    def __init__(self, context: ServiceContext, settings: ExecutorSettings) -> None:
        self._context = context
        self.secrets = StepSecrets(open_secrets(context.bus, settings), settings.passed_variables)
        self.mirror = Mirror(context.bus, settings.home)
        # Resumed runs and child runs read results of runs that may be archived.
        self._log = ArchivedLog(context.bus, f"penstock/executor/{context.name}", Archives(self.mirror.opened))
        self.appender = Appender(
            self._log, lambda error: context.log.warning("append failed, will be retried", error=str(error))
        )
        self.publisher = MessagePublisher(self._publish, context.log.warning)
        self._commits = CommitPublisher(self.appender.submit, self.put, context.log.warning)
        self._cache = ResultCache(
            Bucket(context.bus, subjects.CACHE_BUCKET), self.mirror.missing, self.facts, context.log.warning
        )
        self.versions = versions = Versions(context.bus)
        interpreters = Interpreters(versions.interpreters, [sys.executable, *settings.interpreters()])
        self._artifacts_folder: str | None = None
        folder = settings.home / "environments"
        self.installed = VirtualEnvironments(folder, settings.environments_size, settings.environment_timeout)
        declared = DeclaredEnvironments(folder, versions, self.installed, context.log.info)
        self._sources = Sources(settings.home, versions, self.mirror.local_file, interpreters, declared)

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
        return await self._cache.look_up(attempt, rule, *await self.digests(attempt))

    async def digests(self, attempt: AttemptRequested) -> tuple[str, str]:
        """Return the digests of the environment that an attempt would run in, and of its source bundle."""
        return await self._sources.digests(attempt)

    async def store_result(self, attempt: AttemptRequested, report: CacheReport, end: AttemptFinished) -> CacheReport:
        """See the protocol."""
        return await self._cache.keep(attempt, report, end)

    async def prepare(self, attempt: AttemptRequested) -> AttemptEnvironment:
        """Download the inputs, the source and the checkpoint of an attempt to this machine."""
        secrets = await self.secrets.given(attempt)
        await self.mirror.fetch(attempt.inputs.values())
        where = await self._sources.workplace(attempt, await self._artifacts())
        checkpoint = await latest_checkpoint(attempt, self.facts, self.mirror.fetch, self._context.log.warning)
        return replace(where, checkpoint=checkpoint, limit=await self.mirror.limit(), secrets=secrets)

    async def _artifacts(self) -> str:
        """Return the folder of artifacts on this machine, resolved once: that takes a system call for each parent."""
        if self._artifacts_folder is None:
            self._artifacts_folder = str((await self.mirror.root()).resolve())
        return self._artifacts_folder

    async def publish_artifacts(self, end: AttemptFinished) -> None:
        """See the protocol."""
        models = [Stored(wanted.artifact) for wanted in end.models]
        await self.put([*end.outputs.values(), *end.artifacts.values(), *models])

    async def put(self, made: Iterable[Value]) -> None:
        """Put artifacts of an attempt into the store that all machines share."""
        await self.mirror.put(made)

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
