"""What deployments decided on an event: stored decisions, and those that are computed again.

The stored event and the revision that was in force when it arrived give the same answer as then, by the same function.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from penstock_adapters.cel import CelEvaluator
from penstock_adapters.nats.decision_log import DecisionLog
from penstock_adapters.nats.event_stream import EventStream
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_contracts import event_codec, subjects
from penstock_contracts.deployments import (
    ClauseView,
    DecisionList,
    DecisionView,
    EventList,
    EventView,
    ExplanationView,
)
from penstock_contracts.event_codec import InvalidEventError
from penstock_core.deployments import matching, windows
from penstock_core.deployments.decisions import EventDecided, Outcome
from penstock_core.deployments.definition import Subscription, WindowKind, subscription
from penstock_core.deployments.events import WEBHOOK, Event
from penstock_core.deployments.matching import Clause, ExpressionError, Failed, Filtered, Matched
from penstock_core.deployments.state import Deployment, Snapshot
from penstock_core.facts import Outcome as RunOutcome
from penstock_core.facts import RunFinished, RunRequested
from penstock_core.ports import Recorded
from penstock_gateway.deployments.deployments_service import Deployments
from penstock_gateway.errors import NotFoundError, UnprocessableError
from penstock_gateway.events.event_types_service import EventTypeRegistry

_DIGEST = re.compile("[0-9a-f]{32}\\Z")

_STARTING = (Outcome.STARTED, Outcome.COLLECTED, Outcome.SCHEDULED)
_TAILS = ("requested", "admitted", "finished")

LISTED = 1_000
"""Most decisions of a list."""


class Explanations:
    """Explains events of one project."""

    def __init__(
        self,
        deployments: Deployments,
        decisions: DecisionLog,
        events: EventStream,
        runs: NatsRunLog,
        event_types: EventTypeRegistry,
        evaluator: CelEvaluator,
    ) -> None:
        self._deployments = deployments
        self._decisions = decisions
        self._events = events
        self._runs = runs
        self._event_types = event_types
        self._evaluator = evaluator

    async def events(self, type: str, limit: int, before: int | None) -> EventList:
        """Return stored events of a type (or a prefix such as `com.acme.*`), newest first."""
        pattern = type_pattern(type)
        found = await self._events.newest(self._deployments.project, pattern, limit + 1, before)
        more = found[limit - 1].sequence if len(found) > limit else None
        return EventList(events=[event_view(event) for event in found[:limit]], before=more)

    async def explain(self, which: str, deployment: str | None) -> ExplanationView:
        """Return what each deployment, or one, decided on an event.

        Args:
            which: the digest of the event, or its sequence.
            deployment: only of this one.

        Raises:
            NotFoundError: the event is not stored, or no longer.
        """
        event = await self.find(which)
        project = self._deployments.project
        stored = await self._decisions.decided(project, event.digest)
        by_trigger = {(one.deployment, one.trigger): one for one in stored}
        found: list[DecisionView] = []
        for (owner, name), one in sorted((await self._deployments.log.all()).items()):
            snapshot = one.at(event.received_at)
            if owner != project or snapshot is None or deployment not in (None, name):
                continue
            for shape in _shapes(one, snapshot):
                known = by_trigger.pop((name, shape.trigger), None)
                if known is not None:
                    found.append(await self._stored(known, shape))
                elif shape.takes(event):
                    found.append(await self._computed(one, snapshot, shape, event))
        found += [_view(one) for one in by_trigger.values() if deployment in (None, one.deployment)]
        return ExplanationView(event=event_view(event), decisions=await self._with_limits(found))

    async def of_deployment(self, name: str, limit: int) -> DecisionList:
        """Return the stored decisions of a deployment, newest first."""
        found = await self._decisions.of_deployment(self._deployments.project, name)
        newest = [_view(one) for _, one in found[::-1][:limit]]
        return DecisionList(decisions=await self._with_limits(newest))

    async def test(self, name: str, given: Mapping[str, Any]) -> list[DecisionView]:
        """Return what a deployment would decide on an event now. Nothing is stored.

        Raises:
            NoDeploymentError: it does not exist.
            UnprocessableError: the event is not valid.
        """
        project = self._deployments.project
        deployment = await self._deployments.log.get(project, name)
        definition = deployment.require()
        attributes, data = event_codec.structured({"id": "test", "source": "test", **given})
        try:
            event = event_codec.event(project, attributes, data, time.time())
        except InvalidEventError as error:
            raise UnprocessableError("The event is invalid", str(error), errors=error.errors) from error
        snapshot = deployment.current
        if snapshot is None:
            return []
        found: list[DecisionView] = []
        for shape in _shapes(deployment, snapshot):
            about = event.subject or shape.subject
            if not shape.takes(replace(event, subject=about, extensions={**event.extensions, WEBHOOK: about})):
                continue
            view = await self._computed(deployment, snapshot, shape, event)
            if view.outcome in (Outcome.STARTED, Outcome.COLLECTED, Outcome.SCHEDULED):
                try:
                    given = matching.run_inputs(shape, [event], definition.inputs, self._evaluator)
                except ExpressionError as error:
                    view = view.model_copy(update={"outcome": Outcome.REJECTED, "error": str(error)})
                else:
                    view = view.model_copy(update={"inputs": given})
            found.append(view)
        return found

    async def find(self, which: str) -> Event:
        """Return an event by its digest or its sequence.

        Raises:
            NotFoundError: the event is not stored, or no longer.
        """
        project = self._deployments.project
        if which.isdecimal() and len(which) < 19:
            event = await self._events.get(int(which))
        else:
            decided = await self._decisions.decided(project, which) if _DIGEST.match(which) else []
            sequence = decided[0].event.sequence if decided else 0
            event = await self._events.get(sequence) if sequence else await self._events.by_digest(project, which)
        if event is None or event.project != project:
            raise NotFoundError(
                f"Event {which[:100]!r} is not stored", "list events with GET /v1/events or `penstock events list`"
            )
        return event

    async def _with_limits(self, found: list[DecisionView]) -> list[DecisionView]:
        """Add what limits of active runs did to the runs of decisions."""
        runs = {one.run_id for one in found if one.run_id and one.outcome in _STARTING}
        facts = await self._runs.last([subjects.run(run, tail) for run in runs for tail in _TAILS])
        return [_limited(one, facts) if one.run_id in runs else one for one in found]

    async def _stored(self, known: EventDecided, shape: Subscription) -> DecisionView:
        view = _view(known)
        if known.outcome is not Outcome.COLLECTED or shape.window is None:
            return view
        state = await self._decisions.windows(known.project, known.deployment, known.trigger, known.key)
        if known.window in state.rejected:
            return view.model_copy(
                update={"outcome": Outcome.REJECTED, "run_id": None, "error": state.rejected[known.window]}
            )
        if known.window == state.window and state.open:
            due = windows.due(state, shape.window)
            return view.model_copy(update={"run_id": None, "start_at": due, "waits_for": _waits_for(state, shape)})
        events = state.closed.get(known.window, ())
        if events and not windows.starts_run(shape.window, events, shape.types):
            error = "the window ended without an event of each type"
            return view.model_copy(update={"outcome": Outcome.REJECTED, "run_id": None, "error": error})
        return view

    async def _computed(
        self, deployment: Deployment, snapshot: Snapshot, shape: Subscription, event: Event
    ) -> DecisionView:
        base = DecisionView(
            deployment=deployment.name,
            trigger=shape.trigger,
            revision=snapshot.revision,
            outcome=Outcome.STARTED,
            event=event.digest,
        )
        if problem := await self._event_types.problem(event):
            return base.model_copy(update={"outcome": Outcome.REJECTED, "error": problem})
        if snapshot.paused:
            return base.model_copy(update={"outcome": Outcome.PAUSED})
        return base.model_copy(update=_result(matching.match(shape, event, self._evaluator), shape, event))


def _result(found: matching.Match, shape: Subscription, event: Event) -> dict[str, Any]:
    match found:
        case Filtered():
            return {"outcome": Outcome.FILTERED, "clauses": clause_views(found.clauses)}
        case Failed():
            error = f"{found.where}: {found.error}"
            return {"outcome": Outcome.REJECTED, "error": error, "clauses": clause_views(found.clauses)}
        case Matched() if shape.publish:
            return {"outcome": Outcome.BUILDING}
        case Matched() if shape.window is not None:
            return {"outcome": Outcome.COLLECTED, "key": found.key}
        case Matched() if found.start_at is not None and found.start_at > event.received_at:
            return {"outcome": Outcome.SCHEDULED, "start_at": found.start_at}
        case Matched():
            return {"outcome": Outcome.STARTED}


def _limited(one: DecisionView, facts: Mapping[str, Recorded]) -> DecisionView:
    """A decision with what limits of active runs did to its run: it was skipped, or waits to be one of them."""
    requested, admitted, finished = (
        found.fact if (found := facts.get(subjects.run(one.run_id or "", tail))) else None for tail in _TAILS
    )
    if isinstance(finished, RunFinished) and finished.outcome is RunOutcome.SKIPPED and admitted is None:
        return one.model_copy(update={"outcome": Outcome.LIMITED, "error": finished.error or ""})
    limit = requested.deployment_limit if isinstance(requested, RunRequested) else None
    if limit is None or admitted is not None or finished is not None:
        return one
    runs = "1 run" if limit.most == 1 else f"{limit.most} runs"
    return one.model_copy(update={"waits_for": f"at most {runs} of the deployment may be active (max_active_runs)"})


def _shapes(deployment: Deployment, snapshot: Snapshot) -> list[Subscription]:
    triggers = snapshot.definition.triggers if snapshot.definition else ()
    return [subscription(deployment.name, trigger) for trigger in triggers]


def _waits_for(state: windows.WindowState, shape: Subscription) -> str:
    window = shape.window
    if window is None:
        return ""
    match window.kind:
        case WindowKind.DEBOUNCE:
            return f"{window.seconds:g} s without another event"
        case WindowKind.BATCH if window.count:
            return f"{window.count - len(state.open)} more events"
        case WindowKind.ALL_OF:
            arrived = [event.type for event in state.open]
            missing = [
                type
                for type in shape.types
                if not any(type == one or (type.endswith(".*") and one.startswith(type[:-1])) for one in arrived)
            ]
            return f"an event of each of: {', '.join(missing)}"
        case _:
            return "the end of its time"


def _view(known: EventDecided) -> DecisionView:
    return DecisionView(
        deployment=known.deployment,
        trigger=known.trigger,
        revision=known.revision,
        outcome=known.outcome,
        run_id=known.run_id or None,
        error=known.error,
        key=known.key,
        window=known.window,
        start_at=known.start_at,
        event=known.event.digest,
        at=known.at,
    )


def clause_views(found: tuple[Clause, ...]) -> list[ClauseView]:
    """Return the parts of a filter as the API shows them."""
    return [ClauseView(text=one.text, holds=one.holds, values=one.values, error=one.error) for one in found]


def type_pattern(type: str) -> str:
    """Return the subject pattern of a type of events, a prefix such as `com.acme.*`, or all if it is empty."""
    return type.removesuffix("*") + ">" if type.endswith("*") else type or ">"


def event_view(event: Event) -> EventView:
    """Return an event as the API shows it."""
    return EventView(
        digest=event.digest,
        sequence=event.sequence,
        type=event.type,
        source=event.source,
        id=event.id,
        time=event.time,
        subject=event.subject,
        extensions=event.extensions,
        received_at=event.received_at,
        data=event.data,
    )
