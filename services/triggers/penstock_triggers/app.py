"""Composition root of the triggers service."""

from __future__ import annotations

import asyncio
import time

import pydantic

from penstock_adapters.cel import CelEvaluator
from penstock_adapters.nats import event_stream
from penstock_adapters.nats.backfill_log import BackfillLog
from penstock_adapters.nats.buckets.event_types import EventTypes
from penstock_adapters.nats.buckets.limits import LimitSizes
from penstock_adapters.nats.buckets.projects import Projects
from penstock_adapters.nats.buckets.revocations import NatsRevocations
from penstock_adapters.nats.buckets.tokens import NatsTokens
from penstock_adapters.nats.buckets.versions import Versions
from penstock_adapters.nats.buckets.waits import Waits
from penstock_adapters.nats.build_log import VersionBuildLog
from penstock_adapters.nats.consumer import Delivery
from penstock_adapters.nats.dead_letters import DeadLetters
from penstock_adapters.nats.decision_log import DecisionLog
from penstock_adapters.nats.deployment_log import DeploymentLog
from penstock_adapters.nats.event_stream import EventStream
from penstock_adapters.nats.known_pools import KnownPools
from penstock_adapters.nats.model_log import ModelLog
from penstock_adapters.nats.partition_log import PartitionLog
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_adapters.nats.trigger_timers import Timers, TriggerTimer
from penstock_contracts import deployment_codec, subjects
from penstock_contracts.event_codec import InvalidEventError
from penstock_core.deployments.backfill_facts import BACKFILL_FACTS
from penstock_core.deployments.index import TriggerIndex
from penstock_servicekit.durable_worker import DurableWorker
from penstock_servicekit.owners import Owners
from penstock_servicekit.service_context import ServiceContext
from penstock_triggers.backfills import BackfillDriver
from penstock_triggers.run_starter import RunStarter
from penstock_triggers.service import TriggerService
from penstock_triggers.settings import TriggersSettings
from penstock_triggers.waiting_steps import WaitingSteps


class TriggersApp:
    """Workers for events, for timers, and for backfills."""

    def __init__(self, context: ServiceContext, settings: TriggersSettings) -> None:
        bus, source = context.bus, f"penstock/triggers/{context.name}"
        log = NatsRunLog(bus, source)
        index, evaluator = TriggerIndex(), CelEvaluator()
        partitions, timers = PartitionLog(bus, source), Timers(bus)
        starter = RunStarter(
            log,
            Versions(bus),
            ModelLog(bus, source),
            LimitSizes(bus),
            KnownPools(bus),
            partitions,
            evaluator,
            Owners(NatsTokens(bus), NatsRevocations(bus), Projects(bus)),
            time.time,
        )
        deployments = DeploymentLog(bus, source, index.update)
        self._backfills = BackfillDriver(
            BackfillLog(bus, source), deployments, partitions, starter, log, timers, evaluator, time.time
        )
        self._context = context
        self._letters = DeadLetters(bus)
        self._types = EventTypes(bus, context.log.warning)
        self._service = TriggerService(
            deployments,
            index,
            DecisionLog(bus, source),
            self._letters,
            EventStream(bus),
            starter,
            log,
            timers,
            evaluator,
            VersionBuildLog(bus),
            time.time,
        )
        self._waiting = WaitingSteps(Waits(bus), log)
        concurrency = settings.trigger_concurrency
        self._workers = [
            DurableWorker(
                context,
                subjects.EVENTS,
                subjects.TRIGGERS_CONSUMER,
                self._on_event,
                prefetch=2 * concurrency,
                concurrency=concurrency,
            ),
            DurableWorker(context, subjects.TIMERS, subjects.TRIGGERS_CONSUMER, self._on_timer, concurrency=16),
            DurableWorker(context, subjects.PARTITIONS, subjects.TRIGGERS_CONSUMER, self._on_backfill, concurrency=16),
        ]

    async def start(self) -> None:
        """Read the types of events, and start the workers."""
        await self._types.start()
        for worker in self._workers:
            worker.start()

    async def stop(self) -> None:
        """Stop. What was not acknowledged is delivered to another replica, or again later."""
        for worker in self._workers:
            await worker.stop()
        await self._types.close()

    def ready(self) -> bool:
        """Whether the workers run."""
        return all(worker.ready() for worker in self._workers)

    async def _on_event(self, delivery: Delivery) -> None:
        try:
            event = event_stream.decode(delivery)
        except InvalidEventError as error:
            await self._context.park(delivery.subject, delivery.data, str(error), delivery.stream_seq, delivery.headers)
            return
        if problems := await self._types.problems(event):
            error = "; ".join(f"{path} {message}" for path, message in problems)
            await self._letters.add_invalid(event, f"the event does not fit the schema of its type: {error}")
            return
        await asyncio.gather(
            self._service.handle(event), self._waiting.deliver(event), self._backfills.run_finished(event)
        )

    async def _on_timer(self, delivery: Delivery) -> None:
        try:
            timer = TriggerTimer.model_validate_json(delivery.data)
        except pydantic.ValidationError as error:
            await self._context.park(delivery.subject, delivery.data, str(error), delivery.stream_seq)
            return
        if timer.kind == "backfill":
            await self._backfills.check(timer.project, timer.digest)
        else:
            await self._service.timer(timer)

    async def _on_backfill(self, delivery: Delivery) -> None:
        parsed = subjects.parse_backfill_subject(delivery.subject)
        if parsed is None:
            return
        fact = deployment_codec.read(delivery.subject, delivery.headers.get("ce-type", ""), delivery.data)
        await self._backfills.handle(*parsed, fact if isinstance(fact, BACKFILL_FACTS) else None)


def build(context: ServiceContext, settings: TriggersSettings) -> TriggersApp:
    """Wire the triggers service."""
    return TriggersApp(context, settings)
