"""Publishes the end of every run as an event, once it is in the log, and exports its trace if that is configured.

In: ends of runs from the stream RUNS. Out: an event in the stream EVENTS, which can start runs. Steps can wait for it
without a key, with the name of the pipeline, and with the id of the run.

Promise: every end is published at least once, because its delivery is acknowledged last. Publishing again is
idempotent: the event's id is that of the run. Ends that are older than events can be are not published: deployments
would run again for them.
"""

from __future__ import annotations

import asyncio
import time

from penstock_adapters.nats.bootstrap import EVENT_RETENTION
from penstock_adapters.nats.consumer import Delivery
from penstock_adapters.nats.event_stream import EventStream
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_adapters.otlp import OtlpExporter
from penstock_contracts import subjects
from penstock_contracts.ports import VersionReader
from penstock_core import ids, run_events, script_runs, tracing
from penstock_core.facts import AttemptFinished, RunFinished, RunRequested
from penstock_core.pipeline.ir import Pipeline
from penstock_servicekit.durable_worker import DurableWorker
from penstock_servicekit.service_context import ServiceContext, cancel

_PREFETCH = 200
_CONCURRENCY = 16


class RunAnnouncer:
    """Publishes ends of runs while it runs; all gateways share the work."""

    def __init__(
        self,
        context: ServiceContext,
        log: NatsRunLog,
        versions: VersionReader,
        events: EventStream,
        traces: OtlpExporter | None = None,
    ) -> None:
        self._context = context
        self._traces = traces
        self._exporting: asyncio.Task[None] | None = None
        self._log = log
        self._versions = versions
        self._events = events
        self._worker = DurableWorker(
            context,
            subjects.RUNS,
            subjects.RUN_EVENTS_CONSUMER,
            self._announce,
            prefetch=_PREFETCH,
            concurrency=_CONCURRENCY,
        )

    async def start(self) -> None:
        """Start to publish."""
        if self._traces is not None:
            self._exporting = self._context.task(self._traces.run())
        self._worker.start()

    async def close(self) -> None:
        """Stop; another gateway publishes the rest, or this one after a restart."""
        await self._worker.stop()
        if self._traces is not None and self._exporting is not None:
            await cancel([self._exporting])
            await self._traces.close()

    async def _announce(self, delivery: Delivery) -> None:
        run_id = delivery.subject.split(".")[2]
        if ids.is_recorded(run_id):
            return  # a request to a low-latency endpoint: an event for each would cost more than the request
        names = [subjects.run(run_id, tail) for tail in ("requested", "finished")]
        found = await self._log.last(names)
        requested, finished = (found[name].fact if name in found else None for name in names)
        if not isinstance(requested, RunRequested) or not isinstance(finished, RunFinished):
            return  # unreadable, or deleted meanwhile
        at = finished.finished_at or delivery.at
        ends = await self._ends(requested)
        if self._traces is not None:
            self._traces.add(tracing.spans(requested, finished, ends, at))
        if requested.shadow:
            return  # it must not start other runs
        if at < time.time() - EVENT_RETENTION:
            return  # a consumer that was created again: the decisions on this event have expired
        await self._events.publish(run_events.run_finished(requested, finished, ends, at))

    async def _ends(self, requested: RunRequested) -> list[AttemptFinished]:
        """Return the ends of attempts of steps that are not mapped; a mapped step may have 10,000 items."""
        pipeline = await self._pipeline(requested)
        keys = [node.key for node in pipeline.nodes if node.mapped is None] if pipeline else []
        records = await self._log.last([subjects.run(requested.run_id, f"step.{key}.*.finished") for key in keys])
        return [record.fact for record in records.values() if isinstance(record.fact, AttemptFinished)]

    async def _pipeline(self, requested: RunRequested) -> Pipeline | None:
        if requested.version == script_runs.VERSION:
            return script_runs.pipeline(requested.pipeline)
        version = await self._versions.get(requested.project, requested.pipeline, requested.version)
        return version.pipeline if version else None
