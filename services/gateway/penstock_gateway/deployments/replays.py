"""Replays: past events through another revision of a deployment, or another version of its pipeline.

The runs are isolated (`RunRequested.shadow`): they register no models and cause no events, lists of runs of the
deployment and its partitions do not see them, and their priority is low. Their ids derive from the replay, so a request
that is sent again starts nothing twice. Nothing else is stored: decisions are computed from the stored events.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence

from penstock_adapters.cel import CelEvaluator
from penstock_adapters.nats.event_stream import EventStream
from penstock_adapters.nats.partition_log import PartitionLog
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_contracts.commands import Version
from penstock_contracts.deployments import (
    DecisionView,
    ReplayBody,
    ReplayedDecision,
    ReplayedRun,
    ReplayView,
)
from penstock_core import ids
from penstock_core.deployments import event_partitions, matching
from penstock_core.deployments import replay as replays
from penstock_core.deployments.decisions import Outcome
from penstock_core.deployments.definition import Definition, subscription
from penstock_core.deployments.events import Event
from penstock_core.deployments.matching import ExpressionError
from penstock_core.deployments.partitions import PartitionError, PartitionSet
from penstock_core.deployments.replay import Decided, Start
from penstock_core.errors import InputError
from penstock_core.facts import CacheMode, RunRequested
from penstock_core.requests import Options
from penstock_gateway.deployments.deployments_service import Deployments
from penstock_gateway.deployments.explanations import Explanations, clause_views
from penstock_gateway.errors import UnprocessableError
from penstock_gateway.runs.run_requests import RunRequests
from penstock_gateway.versions.pipeline_versions import PipelineVersions

LABEL = "shadow"
"""Label of the runs of a replay, with its id."""

PRIORITY = -10
"""Added to the priority of the deployment, so that replays do not delay other runs."""

_STARTED = (Outcome.STARTED, Outcome.SCHEDULED)


class Replays:
    """Replays events of one project."""

    def __init__(
        self,
        deployments: Deployments,
        explanations: Explanations,
        events: EventStream,
        partitions: PartitionLog,
        versions: PipelineVersions,
        requests: RunRequests,
        log: NatsRunLog,
        evaluator: CelEvaluator,
    ) -> None:
        self._deployments = deployments
        self._explanations = explanations
        self._events = events
        self._partitions = partitions
        self._versions = versions
        self._requests = requests
        self._log = log
        self._evaluator = evaluator
        self._project = deployments.project

    async def replay(self, name: str, body: ReplayBody, key: str | None, by: str) -> ReplayView:
        """Replay events; with an idempotency key, the same revision and version run each event once.

        Raises:
            NoDeploymentError: the deployment or the revision does not exist.
            NotFoundError: the event is not stored, or the version does not exist.
            UnprocessableError: neither a time nor an event is given, or the revision has no triggers.
        """
        deployment = await self._deployments.log.get(self._project, name)
        deployment.require()
        revision = deployment.revision if body.revision is None else body.revision
        definition = deployment.definition(revision)
        version = await self._versions.get(definition.pipeline, body.version or definition.version)
        events, truncated = await self._selected(name, definition, body)
        # In a thread: up to a thousand events, each with the expressions of all triggers, would hold up all requests.
        found = await asyncio.to_thread(
            replays.replay, self._project, name, definition, events, self._evaluator, time.time()
        )
        before = await self._before(name, events)
        # Another revision or version with the same key is another replay, not the one whose runs exist.
        identity = f"\0replay:{revision}:{version.version}:{key}"
        id = ids.run_id_from_key(self._project, name, identity) if key else _new_id()
        run_by_event = {(one.events[-1].sequence, one.subscription.trigger): one for one in found.starts}
        runs: list[ReplayedRun] = []
        partitions = await self._partitions.of(self._project, name, definition)
        facts: list[RunRequested] = []
        for (sequence, trigger), start in run_by_event.items():
            real = before.get((sequence, trigger))
            shown = ReplayedRun(event=sequence, trigger=trigger, before=real.run_id if real else None)
            if not body.decisions_only:
                try:
                    fact = await self._request(id, name, revision, definition, version, partitions, start, by)
                    shown = shown.model_copy(update={"run_id": fact.run_id})
                    facts.append(fact)
                except (ExpressionError, InputError, PartitionError) as error:
                    shown = shown.model_copy(update={"error": str(error)})
            runs.append(shown)
        if facts:
            await self._log.append(facts)
        return ReplayView(
            id="" if body.decisions_only else id,
            deployment=name,
            revision=revision,
            pipeline=definition.pipeline,
            version=version.version,
            events=len(events),
            truncated=truncated,
            decisions=_compared(events, found.decisions, before, revision),
            runs=runs,
        )

    async def _selected(self, name: str, definition: Definition, body: ReplayBody) -> tuple[list[Event], bool]:
        """The events that the triggers of a definition take, and whether there are more."""
        shapes = [subscription(name, trigger) for trigger in definition.triggers]
        if not shapes:
            raise UnprocessableError(
                f"The revision of deployment {name!r} has no triggers", "there is nothing to replay"
            )
        if body.event:
            return [await self._explanations.find(body.event)], False
        if body.since is None:
            message = "give the time since which events are replayed, or an event"
            raise UnprocessableError("The replay is invalid", message, errors=[("since", message)])
        types = {type for shape in shapes for type in shape.types}
        found = await self._events.between(
            self._project,
            types,
            body.since,
            time.time() if body.until is None else body.until,
            lambda event: any(shape.takes(event) for shape in shapes),
            body.limit + 1,
        )
        return found[: body.limit], len(found) > body.limit

    async def _before(self, name: str, events: Sequence[Event]) -> dict[tuple[int, str], DecisionView]:
        """What the deployment really decided on events, by sequence and trigger."""
        found: dict[tuple[int, str], DecisionView] = {}
        for event in events:
            explained = await self._explanations.explain(str(event.sequence), name)
            found |= {(event.sequence, one.trigger): one for one in explained.decisions}
        return found

    async def _request(
        self,
        id: str,
        name: str,
        revision: int,
        definition: Definition,
        version: Version,
        partitions: PartitionSet | None,
        start: Start,
        by: str,
    ) -> RunRequested:
        event, shape = start.events[-1], start.subscription
        given = await asyncio.to_thread(matching.run_inputs, shape, start.events, definition.inputs, self._evaluator)
        if partitions is not None:
            key = event_partitions.key_of(partitions, shape, start.events, self._evaluator)
            given |= partitions.inputs(partitions.find(key, time.time()))
        options = Options(
            # Not the `deployment` of the run: lists of its runs, its partitions and its endpoint do not see it.
            trigger={
                "type": "replay",
                "replay": id,
                "replayed_deployment": name,
                "trigger": shape.trigger,
                "revision": str(revision),
                "event_type": event.type,
                "event_source": event.source,
                "event_id": event.id,
            },
            requested_by=by,
            labels={**definition.labels, LABEL: id},
            priority=definition.priority + PRIORITY,
            deadline=definition.deadline,
            cache=CacheMode.OFF,
            shadow=True,
        )
        run_id = ids.run_id_from_key(
            self._project, definition.pipeline, f"\0replay:{id}:{shape.trigger}:{start.identity}"
        )
        return await self._requests.build(run_id, version, given, options)


def _new_id() -> str:
    return ids.run_id(time.time_ns() // 1_000_000, os.urandom(10))


def _compared(
    events: Sequence[Event],
    decided: Sequence[Decided],
    before: dict[tuple[int, str], DecisionView],
    revision: int,
) -> list[ReplayedDecision]:
    after = {(one.event.sequence, one.trigger): one for one in decided}
    by_sequence = {event.sequence: event for event in events}
    shown: list[ReplayedDecision] = []
    for sequence, trigger in sorted({*after, *before}):
        real, replayed = before.get((sequence, trigger)), after.get((sequence, trigger))
        event = by_sequence[sequence]
        shown.append(
            ReplayedDecision(
                event=sequence,
                type=event.type,
                at=event.received_at,
                trigger=trigger,
                before=real,
                after=_decision(replayed, revision) if replayed else None,
                differs=_outcome(real.outcome if real else None) != _outcome(replayed.outcome if replayed else None),
            )
        )
    return shown


def _outcome(outcome: Outcome | None) -> Outcome | None:
    """A scheduled run is a started one: in a replay its time is in the past."""
    return Outcome.STARTED if outcome in _STARTED else outcome


def _decision(found: Decided, revision: int) -> DecisionView:
    return DecisionView(
        deployment="",
        trigger=found.trigger,
        revision=revision,
        outcome=found.outcome,
        error=found.error,
        clauses=clause_views(found.clauses),
        key=found.key,
        window=found.window,
        event=found.event.digest,
    )
