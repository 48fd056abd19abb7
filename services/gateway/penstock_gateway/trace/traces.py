"""Follows causes and effects: event, decision, run, the events of the run, and so on.

Nothing is stored for this: a run names the event that started it, an event of the platform names its run, and the
decisions on an event name the runs that it started.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

from penstock_adapters.nats.decision_log import DecisionLog
from penstock_adapters.nats.event_stream import EventStream
from penstock_contracts.trace import Trace, TraceNode
from penstock_core import access, run_events
from penstock_core.deployments.events import Event, event_digest
from penstock_core.facts import RunRequested
from penstock_core.registry.facts import ModelRegistered
from penstock_gateway.errors import NotFoundError
from penstock_gateway.registry.announcer import SOURCE as MODELS
from penstock_gateway.registry.model_registry import Registry
from penstock_gateway.runs.run_reader import RunReader

CAUSES_LIMIT = 100
"""Most causes that are followed back."""

NODES_LIMIT = 500
"""Most events and runs of a trace."""

_DIGEST = re.compile("[0-9a-f]{32}\\Z")


class Traces:
    """Traces of one project."""

    def __init__(
        self, project: str, runs: RunReader, events: EventStream, decisions: DecisionLog, models: Registry
    ) -> None:
        self._project = project
        self._runs = runs
        self._events = events
        self._decisions = decisions
        self._models = models

    async def get(self, which: str) -> Trace:
        """Return the trace of a run or an event.

        Args:
            which: the ID of the run, or the sequence or digest of the event.

        Raises:
            NotFoundError: it does not exist.
        """
        requested = await self._find(which)
        first, seen = requested, {_name(requested)}
        followed: dict[str, Event | RunRequested] = {}
        while (cause := await self._cause(first)) is not None and _name(cause) not in seen:
            if len(seen) == CAUSES_LIMIT:
                break
            seen.add(_name(cause))
            followed[_name(cause)] = first
            first = cause
        return await self._effects(first, _name(requested), followed)

    async def _find(self, which: str) -> Event | RunRequested:
        found: Event | RunRequested | None
        if which.isdecimal() and len(which) < 19:
            found = await self._events.get(int(which))
        elif _DIGEST.match(which):
            found = await self._event(which)
        else:
            return await self._runs.request(which)
        if found is None or found.project != self._project:
            raise NotFoundError(f"Event {which[:100]!r} is not stored", "`penstock events list` lists the events")
        return found

    async def _event(self, digest: str) -> Event | None:
        decided = await self._decisions.decided(self._project, digest)
        if decided:
            return await self._events.get(decided[0].event.sequence)
        return await self._events.by_digest(self._project, digest)

    async def _cause(self, found: Event | RunRequested) -> Event | RunRequested | None:
        if isinstance(found, RunRequested):
            if found.caller is not None:
                return await self._runs.find_request(found.caller.run_id)
            if parent := found.trigger.get("parent"):
                return await self._runs.find_request(parent)
            source, id = found.trigger.get("event_source"), found.trigger.get("event_id")
            return await self._event(event_digest(self._project, source, id)) if source and id else None
        run_id = run_events.run_of(found) or _run_of_model_event(found)
        return await self._runs.find_request(run_id) if run_id else None

    async def _effects(
        self, first: Event | RunRequested, requested: str, followed: Mapping[str, Event | RunRequested]
    ) -> Trace:
        """Return the trace from the first cause on. `followed` has the known effect of each cause, by its name."""
        root = await self._node(first, requested)
        waiting, seen = [(first, root)], {_name(first)}
        truncated = False
        while waiting:
            found, node = waiting.pop(0)
            async for effect in self._caused(found, followed.get(_name(found))):
                if _name(effect) in seen:
                    continue
                if len(seen) == NODES_LIMIT:
                    truncated = True
                    break
                seen.add(_name(effect))
                child = await self._node(effect, requested)
                node.caused.append(child)
                waiting.append((effect, child))
        return Trace(root=root, truncated=truncated)

    async def _caused(
        self, found: Event | RunRequested, known: Event | RunRequested | None
    ) -> AsyncIterator[Event | RunRequested]:
        if known is not None:
            yield known  # reruns, child runs and events without a decision are not found from their cause
        if isinstance(found, Event):
            for decision in await self._decisions.decided(self._project, found.digest):
                run = await self._runs.find_request(decision.run_id) if decision.run_id else None
                if run is not None:
                    yield run
            return
        sources = [(run_events.SOURCE, found.run_id), *await self._runs.sent_events(found.run_id)]
        digests = [event_digest(self._project, source, id) for source, id in sources]
        for model in await self._models.log.all(self._project):
            for fact in model.history:
                registered = isinstance(fact, ModelRegistered) and fact.run_id == found.run_id
                if registered or access.run_of(fact.by) == found.run_id:
                    digests.append(event_digest(self._project, MODELS, fact.tail))
        # Events that caused nothing are left out: without a decision their place in the stream is not known.
        for decided in await asyncio.gather(*(self._decisions.decided(self._project, one) for one in digests)):
            event = await self._events.get(decided[0].event.sequence) if decided else None
            if event is not None:
                yield event

    async def _node(self, found: Event | RunRequested, requested: str) -> TraceNode:
        if isinstance(found, Event):
            return TraceNode(
                kind="event",
                id=str(found.sequence),
                at=found.received_at,
                requested=_name(found) == requested,
                type=found.type,
                source=found.source,
                event_id=found.id,
                subject=found.subject,
            )
        end = await self._runs.finished(found.run_id)
        return TraceNode(
            kind="run",
            id=found.run_id,
            at=found.requested_at,
            requested=_name(found) == requested,
            pipeline=found.pipeline,
            version=found.version,
            state=end[1].outcome.value if end else "running",
            trigger=_trigger(found),
        )


def _name(found: Event | RunRequested) -> str:
    return f"event {found.digest}" if isinstance(found, Event) else f"run {found.run_id}"


def _run_of_model_event(event: Event) -> str:
    if event.source != MODELS or not isinstance(event.data, dict):
        return ""
    data = cast("dict[str, Any]", event.data)
    return str(data.get("run_id") or access.run_of(str(data.get("by") or "")))


def _trigger(run: RunRequested) -> str:
    if run.caller is not None:
        return f"step {run.caller.key}"
    if "parent" in run.trigger:
        return "rerun"
    if "backfill" in run.trigger:
        return f"{run.trigger['deployment']} / backfill {run.trigger['backfill']}"
    if "deployment" in run.trigger:
        return " / ".join(run.trigger[name] for name in ("deployment", "trigger") if run.trigger.get(name))
    return ""
