"""Decides on events: which deployments start runs for them.

In: events, timers. Out: decisions, run requests, ended waits.

Promises: an event that was stored has one decision per deployment and trigger, and one run per decision that starts
one, however often and wherever it is handled. The decision is appended first, then the run; a redelivered event finds
the decision and follows it. A trigger whose expressions fail harms only its own deployment.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from penstock_adapters.nats.build_log import VersionBuildLog
from penstock_adapters.nats.dead_letters import DeadLetters
from penstock_adapters.nats.decision_log import DecisionLog
from penstock_adapters.nats.deployment_log import DeploymentLog
from penstock_adapters.nats.event_stream import EventStream
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_adapters.nats.trigger_timers import Timers, TriggerTimer
from penstock_contracts import subjects
from penstock_core import access, git_sources, run_events
from penstock_core.deployments import decisions, matching, windows
from penstock_core.deployments.decisions import EventDecided, Outcome
from penstock_core.deployments.definition import CronTrigger, Definition, Subscription, Window
from penstock_core.deployments.events import Event
from penstock_core.deployments.index import TriggerIndex
from penstock_core.deployments.matching import Evaluator, ExpressionError, Failed, Filtered, Matched
from penstock_core.deployments.partitions import PartitionError
from penstock_core.deployments.state import Deployment, Snapshot
from penstock_core.deployments.windows import WindowClosed, WindowFact, WindowState
from penstock_core.errors import InputError, InvalidIdError
from penstock_core.facts import SUCCESSFUL, AttemptFinished, RunFinished, RunRequested
from penstock_triggers.keyed_locks import KeyedLocks
from penstock_triggers.run_starter import RunStarter, Start


@dataclass(frozen=True, slots=True)
class _Trigger:
    """A trigger of a deployment, as a revision defines it."""

    deployment: Deployment
    snapshot: Snapshot
    definition: Definition
    subscription: Subscription

    def start(self, events: Sequence[Event], identity: str) -> Start:
        return Start(
            deployment=self.deployment.name,
            snapshot=self.snapshot,
            definition=self.definition,
            subscription=self.subscription,
            events=events,
            identity=identity,
        )

    def decision(self, event: Event, outcome: Outcome, **more: Any) -> EventDecided:
        return EventDecided(
            project=event.project,
            deployment=self.deployment.name,
            trigger=self.subscription.trigger,
            revision=self.snapshot.revision,
            event=decisions.event_ref(event),
            outcome=outcome,
            **more,
        )


class TriggerService:
    """Handles events and timers."""

    def __init__(
        self,
        deployments: DeploymentLog,
        index: TriggerIndex,
        log: DecisionLog,
        dead_letters: DeadLetters,
        events: EventStream,
        starter: RunStarter,
        runs: NatsRunLog,
        timers: Timers,
        evaluator: Evaluator,
        builds: VersionBuildLog,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._builds = builds
        self._deployments = deployments
        self._index = index
        self._log = log
        self._dead_letters = dead_letters
        self._events = events
        self._starter = starter
        self._runs = runs
        self._timers = timers
        self._evaluator = evaluator
        self._clock = clock
        self._keys = KeyedLocks()

    async def handle(self, event: Event) -> None:
        """Decide on an event for all deployments.

        Raises:
            UnavailableError: a part of the platform does not answer; handling the event again is safe.
        """
        await self._deployments.all()
        # All at once: events that are handled concurrently reach the windows of a key in the order of the stream,
        # because nothing that takes different times precedes the lock of the key.
        await asyncio.gather(
            *(
                self._decide(_Trigger(deployment, snapshot, snapshot.definition, subscription), event)
                for deployment, snapshot, subscription in self._index.candidates(event)
                if snapshot.definition is not None and not snapshot.paused
            )
        )

    async def timer(self, timer: TriggerTimer) -> None:
        """Handle a timer that fired: close windows, start scheduled runs, publish that a run is late.

        Raises:
            UnavailableError: a part of the platform does not answer; handling the timer again is safe.
        """
        if timer.kind == "late":
            await self._late(timer)
            return
        deployments = await self._deployments.all()
        deployment = deployments.get((timer.project, timer.deployment))
        # A window that is due while the deployment is paused closes with the next event after it is resumed.
        if deployment is None or deployment.current is None or deployment.current.definition is None:
            return
        if deployment.current.paused:
            return
        if timer.kind == "start":
            for decision in await self._log.decided(timer.project, timer.digest, timer.deployment, timer.trigger):
                await self._start_scheduled(deployment, decision)
            return
        name = (timer.project, timer.deployment, timer.trigger, timer.key)
        async with self._keys.lock(name):
            state = await self._log.windows(*name)
            trigger = self._at(deployment, timer.trigger, state.revision)
            if trigger is None or trigger.subscription.window is None:
                return
            window, now = trigger.subscription.window, max(timer.at, self._clock())
            facts, state = await self._log.collect(*name, lambda found: windows.expire(found, window, now))
            await self._follow(trigger, state, facts)

    # -------------------------------------------------------------------------------------------------------- decisions

    async def _decide(self, trigger: _Trigger, event: Event) -> None:
        found = matching.match(trigger.subscription, event, self._evaluator, explain=False)
        match found:
            case Filtered():
                return
            case Failed():
                rejection = trigger.decision(event, Outcome.REJECTED, error=f"{found.where}: {found.error}")
                await self._follow_rejection(event, await self._log.decide(rejection))
            case Matched() if trigger.subscription.publish:
                await self._build(trigger, event)
            case Matched() if trigger.subscription.window is not None:
                await self._collect(trigger, trigger.subscription.window, found, event)
            case Matched() if found.start_at is not None and found.start_at > self._clock():
                await self._schedule(trigger, found.start_at, event)
            case Matched():
                await self._start(trigger, event)

    async def _build(self, trigger: _Trigger, event: Event) -> None:
        """Request the build of a version. A request that is repeated finds the commit built, or being built."""
        by = access.trigger(trigger.deployment.name)
        try:
            await self._starter.check_owner(trigger.snapshot, event.project)
            mine = trigger.decision(event, Outcome.BUILDING, at=self._clock())
        except InputError as error:
            mine = trigger.decision(event, Outcome.REJECTED, error=str(error), at=self._clock())
        counts = await self._log.decide(mine)
        await self._follow_rejection(event, counts)
        if counts.outcome is Outcome.BUILDING:
            source = git_sources.parse(trigger.subscription.publish)
            await self._builds.request(event.project, source, by, publish=True)

    async def _start(self, trigger: _Trigger, event: Event) -> None:
        start = trigger.start([event], event.digest)
        run, error = await self._built(start)
        outcome = Outcome.REJECTED if run is None else Outcome.STARTED
        mine = trigger.decision(event, outcome, run_id=run.run_id if run else "", error=error, at=self._clock())
        counts = await self._log.decide(mine)
        if counts.outcome is Outcome.STARTED and run is not None:
            await self._request(run, trigger, event)
        elif counts.outcome is Outcome.STARTED and counts.event.sequence == event.sequence:
            await self._report_missing(event, counts, error)
        await self._follow_rejection(event, counts)

    async def _report_missing(self, event: Event, decision: EventDecided, error: str) -> None:
        """Store a dead letter if a decided run was not requested before a service died, and cannot start any more."""
        known = await self._runs.last([subjects.run(decision.run_id, tail) for tail in ("requested", "deleted")])
        if not known:
            await self._dead_letters.add(event, decision.deployment, decision.trigger, error)

    async def _follow_rejection(self, event: Event, decision: EventDecided) -> None:
        """Store a rejected event as a dead letter; the same event sent again is no other one."""
        if decision.outcome is Outcome.REJECTED and decision.event.sequence == event.sequence:
            await self._dead_letters.add(event, decision.deployment, decision.trigger, decision.error)

    async def _schedule(self, trigger: _Trigger, start_at: float, event: Event) -> None:
        run_id = trigger.start([event], event.digest).run_id
        mine = trigger.decision(event, Outcome.SCHEDULED, run_id=run_id, start_at=start_at, at=self._clock())
        counts = await self._log.decide(mine)
        if counts.outcome is Outcome.SCHEDULED and counts.start_at is not None:
            await self._timers.set_start(counts, counts.start_at)

    async def _start_scheduled(self, deployment: Deployment, decision: EventDecided) -> None:
        if decision.outcome is not Outcome.SCHEDULED:
            return
        trigger = self._at(deployment, decision.trigger, decision.revision)
        event = await self._events.get(decision.event.sequence)
        if trigger is None or event is None:
            return
        run, error = await self._built(trigger.start([event], event.digest))
        if run is not None:
            await self._request(run, trigger, event)
        else:
            await self._dead_letters.add(event, decision.deployment, decision.trigger, error)

    async def _built(self, start: Start) -> tuple[RunRequested | None, str]:
        """The request of a run, or the error of the user."""
        try:
            return await self._starter.build(start), ""
        except (ExpressionError, InputError, InvalidIdError, PartitionError) as error:
            return None, str(error)

    async def _request(self, run: RunRequested, trigger: _Trigger, event: Event) -> None:
        """Request a run; after the request, so that a timer never fires for a run that does not exist."""
        await self._starter.request(run)
        is_tick = isinstance(trigger.definition.trigger(trigger.subscription.trigger), CronTrigger)
        await self._timers.set_late(run, trigger.definition, _time(event) if is_tick else None)

    async def _late(self, timer: TriggerTimer) -> None:
        """Publish that a run or one of its steps is late, unless it has ended well."""
        names = [subjects.run(timer.run_id, tail) for tail in ("requested", "finished")]
        found = await self._runs.last(names)
        requested, finished = (found[name].fact if name in found else None for name in names)
        if not isinstance(requested, RunRequested):
            return  # deleted meanwhile
        outcome = finished.outcome.value if isinstance(finished, RunFinished) else ""
        if outcome == "succeeded" or (outcome and not timer.success):
            return
        if timer.step and await self._has_succeeded(timer):
            return
        await self._events.publish(run_events.run_late(requested, outcome, timer.reason, timer.at, timer.step))

    async def _has_succeeded(self, timer: TriggerTimer) -> bool:
        """Whether the step of a timer has succeeded, is reused, or is skipped."""
        tails = ("*.finished", "reused", "skipped")
        found = await self._runs.last([subjects.run(timer.run_id, f"step.{timer.step}.{tail}") for tail in tails])
        facts = [record.fact for record in found.values()]
        return any(not isinstance(fact, AttemptFinished) or fact.outcome in SUCCESSFUL for fact in facts)

    # ---------------------------------------------------------------------------------------------------------- windows

    async def _collect(self, trigger: _Trigger, window: Window, found: Matched, event: Event) -> None:
        name = (event.project, trigger.deployment.name, trigger.subscription.trigger, found.key)
        reference = decisions.event_ref(event)
        async with self._keys.lock(name):
            state = await self._log.windows(*name)
            if windows.throttled(state, window, reference):
                run_id = self._window_run(trigger, state, state.window)
                await self._log.decide(
                    trigger.decision(
                        event, Outcome.THROTTLED, run_id=run_id, key=found.key, window=state.window, at=self._clock()
                    )
                )
                return
            revision, types = trigger.snapshot.revision, trigger.subscription.types
            facts, state = await self._log.collect(
                *name, lambda now: windows.collect(now, window, reference, revision, types)
            )
            number = state.window_of(event.digest)
            await self._follow(trigger, state, facts)
            await self._log.decide(
                trigger.decision(
                    event,
                    Outcome.COLLECTED,
                    run_id=self._window_run(trigger, state, number),
                    key=found.key,
                    window=number,
                    at=self._clock(),
                )
            )

    async def _follow(self, trigger: _Trigger, state: WindowState, facts: Sequence[WindowFact]) -> None:
        """Request the runs of the windows that these facts closed, and set the timer of the open window.

        Without facts the message came again: its first handler may have died before it requested the runs.
        """
        window = trigger.subscription.window
        if window is None:
            return
        closings = [fact.window for fact in facts if isinstance(fact, WindowClosed)] if facts else [*state.closed]
        for number in closings:
            references = state.closed.get(number, ())
            if windows.starts_run(window, references, trigger.subscription.types):
                await self._start_window(trigger, state.key, number, references)
        due = windows.due(state, window)
        if due is not None:
            await self._timers.set_window(state, due)

    async def _start_window(
        self, trigger: _Trigger, key: str, number: int, references: Sequence[decisions.EventRef]
    ) -> None:
        events = await self._events.get_all(references)
        if not events:
            return
        events.sort(key=lambda event: event.sequence)
        run, error = await self._built(trigger.start(events, windows.window_identity(key, number)))
        if run is not None:
            await self._request(run, trigger, events[-1])
            return
        revision = trigger.snapshot.revision
        place = (events[-1].project, trigger.deployment.name, trigger.subscription.trigger, key)
        # First the letter: once the window is rejected, nothing would find out that it is missing.
        await self._dead_letters.add(events[-1], trigger.deployment.name, trigger.subscription.trigger, error)
        await self._log.collect(*place, lambda state: windows.reject(state, number, error, revision, self._clock()))

    def _window_run(self, trigger: _Trigger, state: WindowState, number: int) -> str:
        return decisions.run_id(
            state.project,
            trigger.definition.pipeline,
            state.deployment,
            state.trigger,
            windows.window_identity(state.key, number),
        )

    def _at(self, deployment: Deployment, name: str, revision: int) -> _Trigger | None:
        """A trigger as it was after a revision."""
        snapshot = next((one for one in deployment.snapshots if one.revision == revision), None)
        if snapshot is None or snapshot.definition is None:
            return None
        shapes = self._index.subscriptions(deployment, snapshot)
        found = next((shape for shape in shapes if shape.trigger == name), None)
        return None if found is None else _Trigger(deployment, snapshot, snapshot.definition, found)


def _time(event: Event) -> float | None:
    """When a tick was scheduled; None for one that others than the cron service have sent without a valid time."""
    try:
        return datetime.fromisoformat(event.time).timestamp()
    except ValueError:
        return None
