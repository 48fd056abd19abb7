"""Builds and appends the requests of runs that triggers start."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from penstock_adapters.nats.buckets.limits import LimitSizes
from penstock_adapters.nats.buckets.versions import Versions
from penstock_adapters.nats.known_pools import KnownPools
from penstock_adapters.nats.model_log import ModelLog
from penstock_adapters.nats.partition_log import PartitionLog
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_contracts.commands import Version
from penstock_core import access, requests, run_events, trace_context
from penstock_core.deployments import decisions, event_partitions, matching, partitions
from penstock_core.deployments.definition import ENDPOINT_CALLED, Definition, Subscription
from penstock_core.deployments.events import REQUEST_ID, Event
from penstock_core.deployments.matching import Evaluator
from penstock_core.deployments.partitions import Partition
from penstock_core.deployments.state import Snapshot
from penstock_core.errors import InputError
from penstock_core.facts import RunRequested
from penstock_core.frozen import frozen
from penstock_core.requests import Inputs, Options, Target
from penstock_servicekit.owners import Owners


@frozen(kw_only=True)
class Start:
    """What a run is started for: a trigger of a revision of a deployment, and its events, oldest first.

    `identity` is the digest of the event, or that of the window (see `decisions.run_id`).
    """

    deployment: str
    snapshot: Snapshot
    definition: Definition
    subscription: Subscription
    events: Sequence[Event]
    identity: str

    @property
    def run_id(self) -> str:
        """The id of the run, the same one however often it is started."""
        project = self.events[-1].project
        return decisions.run_id(
            project, self.definition.pipeline, self.deployment, self.subscription.trigger, self.identity
        )


class RunStarter:
    """Requests runs on NATS."""

    def __init__(
        self,
        log: NatsRunLog,
        versions: Versions,
        models: ModelLog,
        limits: LimitSizes,
        pools: KnownPools,
        partitions: PartitionLog,
        evaluator: Evaluator,
        owners: Owners,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._log = log
        self._versions = versions
        self._models = models
        self._limits = limits
        self._pools = pools
        self._partitions = partitions
        self._evaluator = evaluator
        self._owners = owners
        self._clock = clock

    async def build(self, start: Start) -> RunRequested:
        """Build the request of a run.

        Raises:
            ExpressionError: a mapping to an input, or the key of the partition, failed.
            InputError: the inputs do not fit the pipeline, there is no such published version, a step has an unknown
                pool, too many runs started each other, or the owner of the deployment may not start runs.
            PartitionError: the events are for no partition that exists.
            UnavailableError: a part of the platform does not answer.
        """
        definition, event = start.definition, start.events[-1]
        hops = run_events.next_hop(start.events)
        if hops >= run_events.HOPS_LIMIT:
            raise InputError(
                f"{hops} runs started each other by their events: the trigger may run for events of its own runs; "
                "filter them, such as data.deployment != 'NAME'"
            )
        await self.check_owner(start.snapshot, event.project)
        given = matching.run_inputs(start.subscription, start.events, definition.inputs, self._evaluator)
        partition, mapped = await self._partition(start)
        options = Options(
            trigger={
                "type": _kind(start),
                "deployment": start.deployment,
                "trigger": start.subscription.trigger,
                "revision": str(start.snapshot.revision),
                "event_type": event.type,
                "event_source": event.source,
                "event_id": event.id,
                "hops": str(hops),
                **trace_context.given(str(event.extensions.get(trace_context.TRACEPARENT, ""))),
                **_request_id(event),
                **partitions.trigger(partition),
            },
            requested_by=access.trigger(start.deployment),
            labels={**definition.labels, **partitions.trigger(partition)},
            priority=definition.priority,
            deadline=definition.deadline,
            deployment_limit=definition.active_limit(start.deployment),
        )
        version = await self._version(event.project, definition.pipeline, definition.version)
        return await self._build(start.run_id, version, {**given, **mapped}, options)

    async def check_owner(self, snapshot: Snapshot, project: str) -> None:
        """Check that the owner of a deployment may start what its triggers start.

        Raises:
            InputError: it may not, or the project is archived.
            UnavailableError: a part of the platform does not answer.
        """
        await self._owners.check(snapshot.owner, project)

    async def build_item(
        self, run_id: str, project: str, pipeline: str, version: int, given: Mapping[str, Any], options: Options
    ) -> RunRequested:
        """Build the request of the run of an item of a backfill.

        Raises:
            InputError: the inputs do not fit the pipeline, there is no such version, a step has an unknown pool, or the
                principal that started the backfill may not start runs.
            UnavailableError: a part of the platform does not answer.
        """
        await self._owners.check(options.requested_by, project, "backfill", "started")
        return await self._build(run_id, await self._version(project, pipeline, version), given, options)

    async def _build(self, run_id: str, version: Version, given: Mapping[str, Any], options: Options) -> RunRequested:
        names = requests.model_references(version.pipeline.params, given)
        target = Target(
            project=version.project,
            pipeline=version.pipeline,
            version=version.version,
            limited_pools=await self._limits.limited_pools(),
            available=await self._pools.available(version.pipeline),
            environments=version.declared(),
        )
        inputs = Inputs(given=given, models=await self._models.resolve(version.project, names))
        return requests.build(run_id, target, inputs, options, self._clock())

    async def _partition(self, start: Start) -> tuple[Partition | None, dict[str, Any]]:
        """The partition that a run is for, if the deployment has partitions, with the inputs that it sets."""
        event = start.events[-1]
        found = await self._partitions.of(event.project, start.deployment, start.definition)
        if found is None:
            return None, {}
        key = event_partitions.key_of(found, start.subscription, start.events, self._evaluator)
        by = access.trigger(start.deployment)
        partition = await self._partitions.find(event.project, start.deployment, found, key, by)
        return partition, found.inputs(partition)

    async def request(self, *runs: RunRequested) -> list[bool]:
        """Append the requests of runs; returns for each whether it is new.

        Raises:
            UnavailableError: the log does not answer; requesting again is safe.
        """
        return await self._log.append(runs)

    async def _version(self, project: str, pipeline: str, wanted: int | None) -> Version:
        number = await self._versions.latest(project, pipeline) if wanted is None else wanted
        version = None if number is None else await self._versions.get(project, pipeline, number)
        if version is None:
            missing = f"version {wanted}" if wanted else "published version"
            raise InputError(f"pipeline {pipeline!r} has no {missing}: publish one with `penstock register FILE`")
        return version


def _request_id(event: Event) -> dict[str, str]:
    """Return the name that a caller of an endpoint gave to its request, if it gave one."""
    key = event.extensions.get(REQUEST_ID) if event.type == ENDPOINT_CALLED else None
    return {"request_id": str(key)} if key else {}


def _kind(start: Start) -> str:
    """The kind of trigger, as runs show it."""
    trigger = start.definition.trigger(start.subscription.trigger)
    return trigger.kind if trigger is not None else "event"
