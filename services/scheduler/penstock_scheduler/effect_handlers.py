"""Carries out the effects of runs outside their logs (`penstock_core.run.effects`), and their timers.

In: the states of runs with effects in their outboxes. Out: facts in the logs of other runs, timers, model
registrations, events of steps, messages to executors; and facts of the same run that followed, which are in its log
already.

Everything here is idempotent: it is done before the inputs are acknowledged, and again by any replica that folds the
run from its log.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from penstock_adapters.nats.buckets.waits import Alarms, Waits, came, wait
from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.known_pools import KnownPools
from penstock_contracts import fact_codec, subjects
from penstock_contracts.commands import Version
from penstock_contracts.ports import VersionReader
from penstock_core import access, ownership, requests
from penstock_core.errors import PenstockError, UnavailableError
from penstock_core.facts import CancelRequested, ClockReached, Fact, StepSuspended
from penstock_core.ports import Recorded, RunLog
from penstock_core.registry.facts import ModelRegistered
from penstock_core.requests import Target
from penstock_core.run import child_runs
from penstock_core.run.effects import (
    AcquireSlots,
    AdmitRun,
    CancelChildRun,
    Effect,
    KillAttempt,
    NotifyCaller,
    PublishEvents,
    RegisterModels,
    ReleaseRun,
    ReleaseSlots,
    StartChildRun,
    SubscribeEvent,
    UnsubscribeEvent,
)
from penstock_core.run.machine import RunState, Status
from penstock_scheduler.model_registration import Registrar
from penstock_scheduler.step_events import StepEvents

_LIMITS = AcquireSlots | ReleaseSlots | AdmitRun | ReleaseRun


class Log(RunLog, Protocol):
    """The log of all runs, with access by subject."""

    async def last(self, places: Sequence[str]) -> dict[str, Recorded]:
        """Return the last facts of these subjects, by subject."""
        ...


class VersionSource(VersionReader, Protocol):
    """Reads pipeline versions, and which of them are published."""

    async def latest(self, project: str, pipeline: str) -> int | None:
        """Return the number of the latest published version; None if none is published."""
        ...


class ModelResolver(Protocol):
    """Looks up registered models."""

    async def resolve(self, project: str, names: Mapping[str, str]) -> dict[str, ModelRegistered | PenstockError]:
        """Resolve references to registered models, by parameter: to a version, or to the error of the lookup."""
        ...


class Limiter(Protocol):
    """Manages slots and active runs."""

    @property
    def pools(self) -> frozenset[str]:
        """Pools with a limited size."""
        ...

    async def carry_out(self, run: RunState, effects: Sequence[Effect], now: float) -> list[Fact]:
        """Carry out effects; returns the facts of this run that followed, which are in its log."""
        ...


class EffectHandlers:
    """Carries out effects on NATS."""

    def __init__(
        self,
        bus: Bus,
        log: Log,
        versions: VersionSource,
        models: ModelResolver,
        limiter: Limiter,
        registrar: Registrar,
        step_events: StepEvents,
        clock: Callable[[], float],
    ) -> None:
        self._bus = bus
        self._registrar = registrar
        self._step_events = step_events
        self._log = log
        self._versions = versions
        self._models = models
        self._limiter = limiter
        self._clock = clock
        self._pools = KnownPools(bus)
        self._waits = Waits(bus)
        self._alarms = Alarms(bus)

    async def register(self, state: RunState) -> None:
        """Register the models and publish the events of ended attempts, so that what follows finds them.

        Raises:
            UnavailableError: a service did not answer; the outbox is unchanged.
        """
        wanted = [effect for effect in state.outbox if isinstance(effect, RegisterModels)]
        if wanted:
            await self._registrar.register(state, wanted)
            for effect in wanted:
                state.outbox.pop(effect, None)
        for effect in [effect for effect in state.outbox if isinstance(effect, PublishEvents)]:
            if state.requested is not None:
                await self._step_events.publish(state.requested, effect.key, effect.attempt)
            state.outbox.pop(effect, None)

    async def carry_out(self, state: RunState) -> list[Fact]:
        """Carry out the effects in a run's outbox, and empty it.

        Returns:
            Facts of this run that followed and are in its log, to be folded.

        Raises:
            UnavailableError: a service did not answer; the outbox is unchanged.
        """
        wanted = list(state.outbox)
        slots: list[Effect] = [effect for effect in wanted if isinstance(effect, _LIMITS)]
        releases = [effect for effect in slots if isinstance(effect, ReleaseSlots)]
        if releases:
            kept = set(releases) - set(await self._without_process(state.run_id, releases))
            slots = [effect for effect in slots if effect not in kept]
        others = [effect for effect in wanted if not isinstance(effect, _LIMITS)]
        done = await asyncio.gather(
            *([self._limiter.carry_out(state, slots, self._clock())] if slots else []),
            *(self._one(state, effect) for effect in others),
        )
        for effect in wanted:
            state.outbox.pop(effect, None)
        return [fact for facts in done for fact in facts]

    async def _one(self, state: RunState, effect: Effect) -> list[Fact]:
        match effect:
            case KillAttempt(key, attempt):
                await self._bus.client.publish(subjects.kill(state.run_id, key, attempt), b"")
            case StartChildRun(key, attempt):
                return await self._start_run(state, key, attempt)
            case CancelChildRun(key, attempt):
                await self._cancel_run(state, key, attempt)
            case SubscribeEvent(key, attempt):
                return await self._expect(state, key, attempt)
            case UnsubscribeEvent(key, attempt):
                await self._unexpect(state, key, attempt)
            case NotifyCaller():
                await self._report(state)
            case _:
                pass
        return []

    async def _without_process(self, run_id: str, releases: list[ReleaseSlots]) -> list[ReleaseSlots]:
        """Return the releases of attempts of which no process can be left.

        An executor that owns an attempt reads whether it has ended before it starts a process, and here `started` is
        read after the end: so an attempt that nobody owned by then gets no process.
        """
        subjects_of = {
            release: [
                subjects.run(run_id, f"step.{release.key}.{release.attempt}.{tail}")
                for tail in ("started", "finished", "stopped")
            ]
            for release in releases
        }
        known = await self._log.last([subject for group in subjects_of.values() for subject in group])
        return [
            release
            for release, group in subjects_of.items()
            if ownership.is_stopped(*(known[one].fact if one in known else None for one in group))
            or ownership.is_stopped(*[await self._latest(one) for one in group], certain=True)
        ]

    async def _latest(self, subject: str) -> Fact | None:
        """Return the fact on a subject as the leader knows it: a replica may lack the latest ones."""
        message = await self._bus.last(subjects.RUNS, subject)
        return fact_codec.read(subject, message.data) if message is not None else None

    # ------------------------------------------------------------------------------------------------------- child runs

    async def _start_run(self, state: RunState, key: str, attempt: int) -> list[Fact]:
        fact = _suspended(state, key, attempt)
        if fact is None or state.requested is None:
            return []
        try:
            version = await self._version(fact)
            target = Target(
                project=fact.project,
                pipeline=version.pipeline,
                version=version.version,
                limited_pools=self._limiter.pools,
                available=await self._pools.available(version.pipeline),
                environments=version.declared(),
            )
            names = requests.model_references(version.pipeline.params, fact.inputs)
            models = await self._models.resolve(fact.project, names)
            run = child_runs.build_request(fact, state.requested, target, models, self._clock())
        except UnavailableError:
            raise
        except PenstockError as error:
            return await self._append(child_runs.refused(fact, error, self._clock()))
        await self._log.append([run])
        return []

    async def _version(self, fact: StepSuspended) -> Version:
        number = fact.version or await self._versions.latest(fact.project, fact.target)
        version = await self._versions.get(fact.project, fact.target, number) if number else None
        if version is None:
            if fact.version:
                raise PenstockError(f"there is no version {fact.version} of pipeline {fact.target!r}")
            raise PenstockError(
                f"there is no published version of pipeline {fact.target!r}: `penstock register FILE` publishes one"
            )
        return version

    async def _cancel_run(self, state: RunState, key: str, attempt: int) -> None:
        spec = state.plan.specs[state.steps[key].node if key in state.steps else key.partition("[")[0]]
        project = state.requested.project if state.requested else "default"
        started = StepSuspended(
            run_id=state.run_id, key=key, attempt=attempt, kind=spec.kind, project=project, target=spec.target
        )
        step = state.find(key)
        why = (step.error.message if step and step.error else "") or "its step no longer waits for it"
        by = access.run_step(state.run_id, key)
        await self._log.append([CancelRequested(run_id=child_runs.run_id(started), by=by, reason=why[:1000])])

    async def _report(self, state: RunState) -> None:
        if state.finished is not None and state.requested is not None and state.requested.caller is not None:
            await self._log.append([child_runs.ended(state.requested.caller, state.finished, self._clock())])

    # ------------------------------------------------------------------------------------------------------- events

    async def _expect(self, state: RunState, key: str, attempt: int) -> list[Fact]:
        fact = _suspended(state, key, attempt)
        if fact is None:
            return []
        since = state.requested.requested_at if state.requested else 0.0
        event = await self._waits.expect(fact, since)
        return [] if event is None else await self._append(came(wait(fact), event, self._clock()))

    async def _unexpect(self, state: RunState, key: str, attempt: int) -> None:
        step = state.find(key)
        if step is not None and step.suspended is not None and step.suspended.attempt == attempt:
            await self._waits.forget(step.suspended)

    async def _append(self, fact: Fact) -> list[Fact]:
        [written] = await self._log.append([fact])
        return [fact] if written else []

    # ------------------------------------------------------------------------------------------------------- timers

    async def set_alarm(self, state: RunState, armed: float | None) -> float | None:
        """Set the timer of the run to when its next timer expires; `armed` is its present time, as far as known."""
        if state.finished is not None:
            if armed is not None:
                await self._alarms.disarm(state.run_id)
            return None
        at = state.alarm()
        if at is None or at == armed:
            return armed
        await self._alarms.arm(state.run_id, in_ms(at))
        return at

    async def wake(self, run_id: str, at_ms: int, sequence: int) -> None:
        """Record that the time of a timer has come."""
        end = subjects.run(run_id, "finished")
        if end not in await self._log.last([end]):
            await self._log.append([ClockReached(run_id=run_id, at=at_ms / 1000)])
        await self._alarms.done(sequence)


def in_ms(at: float) -> int:
    """Return whole milliseconds, rounded up, of a time in Unix seconds."""
    ms = math.ceil(at * 1000)
    return ms if ms / 1000 >= at else ms + 1


def _suspended(state: RunState, key: str, attempt: int) -> StepSuspended | None:
    """Return the wait of an attempt that is still suspended."""
    step = state.find(key)
    waits = step is not None and step.status is Status.SUSPENDED and step.attempt == attempt
    return step.suspended if waits and step is not None else None
