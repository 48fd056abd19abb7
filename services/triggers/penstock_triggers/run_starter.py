"""Builds and appends the requests of runs that triggers start."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from penstock_adapters.nats.buckets.limits import LimitSizes
from penstock_adapters.nats.buckets.versions import Versions
from penstock_adapters.nats.known_pools import KnownPools
from penstock_adapters.nats.model_log import ModelLog
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_contracts.commands import Version
from penstock_core import access, requests, run_events
from penstock_core.deployments import decisions, matching
from penstock_core.deployments.definition import Definition, Subscription
from penstock_core.deployments.events import Event
from penstock_core.deployments.matching import Evaluator
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
        evaluator: Evaluator,
        owners: Owners,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._log = log
        self._versions = versions
        self._models = models
        self._limits = limits
        self._pools = pools
        self._evaluator = evaluator
        self._owners = owners
        self._clock = clock

    async def build(self, start: Start) -> RunRequested:
        """Build the request of a run.

        Raises:
            ExpressionError: a mapping to an input failed.
            InputError: the inputs do not fit the pipeline, there is no such published version, a step has an unknown
                pool, too many runs started each other, or the owner of the deployment may not start runs.
            UnavailableError: a part of the platform does not answer.
        """
        definition, event = start.definition, start.events[-1]
        hops = run_events.next_hop(start.events)
        if hops >= run_events.HOPS_LIMIT:
            raise InputError(
                f"{hops} runs started each other by their events: the trigger may run for events of its own runs; "
                "filter them, such as data.deployment != 'NAME'"
            )
        await self._owners.check(start.snapshot.owner, event.project)
        version = await self._version(event.project, definition)
        given = matching.run_inputs(start.subscription, start.events, definition.inputs, self._evaluator)
        names = requests.model_references(version.pipeline.params, given)
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
            },
            requested_by=access.trigger(start.deployment),
            labels=definition.labels,
            priority=definition.priority,
            deadline=definition.deadline,
        )
        target = Target(
            project=event.project,
            pipeline=version.pipeline,
            version=version.version,
            limited_pools=await self._limits.limited_pools(),
            known_pools=await self._pools.known(requests.pools(version.pipeline)),
        )
        inputs = Inputs(given=given, models=await self._models.resolve(event.project, names))
        return requests.build(start.run_id, target, inputs, options, self._clock())

    async def request(self, run: RunRequested) -> bool:
        """Append the request of a run; returns False if it existed.

        Raises:
            UnavailableError: the log does not answer; requesting again is safe.
        """
        return (await self._log.append([run]))[0]

    async def _version(self, project: str, definition: Definition) -> Version:
        pipeline, number = definition.pipeline, definition.version
        if number is None:
            number = await self._versions.latest(project, pipeline)
        version = None if number is None else await self._versions.get(project, pipeline, number)
        if version is None:
            missing = f"version {definition.version}" if definition.version else "published version"
            raise InputError(f"pipeline {pipeline!r} has no {missing}: publish one with `penstock register FILE`")
        return version


def _kind(start: Start) -> str:
    """The kind of trigger, as runs show it."""
    trigger = start.definition.trigger(start.subscription.trigger)
    return trigger.kind if trigger is not None else "event"
