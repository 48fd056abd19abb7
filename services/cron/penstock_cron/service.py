"""The cron service: keeps one timer per cron trigger, and publishes an event when it fires.

In: changed deployments, timers that fired. Out: events of type `penstock.cron.tick.v1`, the next timers. Which runs an
event starts is up to the triggers service.

Promises: a tick becomes one event, however often and by whichever replica it is handled, because its id derives from
deployment, trigger and time. A changed trigger never fires a tick of before the change. Missed ticks fire as
the trigger's `catchup` says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import pydantic

from penstock_adapters import cron_expressions
from penstock_adapters.cron_expressions import ScheduleError
from penstock_contracts.commands import Tick
from penstock_core.deployments import ticks
from penstock_core.deployments.definition import Catchup, CronTrigger
from penstock_core.deployments.events import Event
from penstock_core.deployments.state import Deployment, Snapshot

MISSED_AFTER = 60.0
"""Seconds after which a tick counts as missed."""

Name = tuple[str, str]
"""Project and name of a deployment."""


class Edges(Protocol):
    """The ports of the cron service."""

    async def deployment(self, project: str, name: str) -> Deployment:
        """Return a deployment, as new as the last acknowledged change."""
        ...

    async def deployments(self) -> dict[Name, Deployment]:
        """Return all deployments."""
        ...

    async def armed(self, name: Name | None = None) -> list[Tick]:
        """Return the armed ticks, of a deployment or of all."""
        ...

    async def arm(self, tick: Tick, at: float) -> None:
        """Have the broker deliver a tick at a time; it replaces the armed tick of that trigger."""
        ...

    async def disarm(self, tick: Tick) -> None:
        """Remove the armed tick of a trigger."""
        ...

    async def publish(self, event: Event) -> None:
        """Store an event; the same one is stored once."""
        ...

    async def refuse(self, subject: str, body: bytes, why: str) -> None:
        """Park a message that cannot be used, with the reason."""
        ...


class CronService:
    """Keeps the next tick of every cron trigger armed."""

    def __init__(self, edges: Edges, clock: Callable[[], float]) -> None:
        self._edges = edges
        self._clock = clock

    async def arm_all(self) -> None:
        """Arm every trigger whose armed tick does not match; called at start and periodically."""
        armed = {(tick.project, tick.deployment, tick.trigger): tick for tick in await self._edges.armed()}
        for (project, name), deployment in [*(await self._edges.deployments()).items()]:
            for trigger in _active(deployment):
                tick = armed.get((project, name, trigger.name))
                if tick is None or not _is_current(deployment, tick, trigger):
                    await self.rearm(project, name)
                    break

    async def rearm(self, project: str, name: str) -> None:
        """Arm the triggers of a deployment that changed, and disarm those that are gone or paused."""
        while True:
            deployment = await self._edges.deployment(project, name)
            active = {trigger.name: trigger for trigger in _active(deployment)}
            armed = {tick.trigger: tick for tick in await self._edges.armed((project, name))}
            for tick in armed.values():
                if tick.trigger not in active:
                    await self._edges.disarm(tick)
            for trigger in active.values():
                tick = armed.get(trigger.name)
                if tick is None or not _is_current(deployment, tick, trigger):
                    await self._arm(deployment, trigger, self._clock())
            if (await self._edges.deployment(project, name)).revision == deployment.revision:
                return

    async def tick(self, body: bytes) -> None:
        """Handle a tick that fired.

        Raises:
            UnavailableError: a part of the platform did not answer; the tick must be delivered again.
        """
        try:
            tick = Tick.model_validate_json(body)
        except pydantic.ValidationError as error:
            await self._edges.refuse("ticks", body, f"unreadable tick: {error}")
            return
        deployment = await self._edges.deployment(tick.project, tick.deployment)
        trigger = next((one for one in _active(deployment) if one.name == tick.trigger), None)
        if trigger is None:
            return  # it was paused, deleted or changed: its triggers were armed again then
        now = self._clock()
        if not _is_current(deployment, tick, trigger):
            await self.rearm(tick.project, tick.deployment)
            return
        due, last = _due(trigger, tick.at, now)
        for at in due:
            await self._edges.publish(ticks.tick_event(tick.project, tick.deployment, tick.trigger, at))
        await self._arm(deployment, trigger, last)
        # Another replica may have armed a newer revision meanwhile, which this one has replaced then.
        if (await self._edges.deployment(tick.project, tick.deployment)).revision != deployment.revision:
            await self.rearm(tick.project, tick.deployment)

    async def _arm(self, deployment: Deployment, trigger: CronTrigger, after: float) -> None:
        """Arm the first tick of a trigger after a time."""
        try:
            at = cron_expressions.trigger_tick(trigger, after)
        except ScheduleError as error:
            place = f"deployments.{deployment.project}.{deployment.name}"
            await self._edges.refuse(place, trigger.name.encode(), str(error))
            return
        if at is None:
            return
        tick = Tick(
            project=deployment.project,
            deployment=deployment.name,
            trigger=trigger.name,
            revision=deployment.revision,
            at=at,
        )
        await self._edges.arm(tick, at + cron_expressions.delay(trigger, deployment.name, at))


def _active(deployment: Deployment) -> list[CronTrigger]:
    """The cron triggers that fire now."""
    current = deployment.current
    if current is None or current.paused:
        return []
    return _cron_triggers(current)


def _cron_triggers(snapshot: Snapshot) -> list[CronTrigger]:
    triggers = snapshot.definition.triggers if snapshot.definition else ()
    return [trigger for trigger in triggers if isinstance(trigger, CronTrigger)]


def _is_current(deployment: Deployment, tick: Tick, trigger: CronTrigger) -> bool:
    """Whether a tick was armed for the trigger as it is, without a pause since."""
    if tick.revision == deployment.revision:
        return True
    since = [snapshot for snapshot in deployment.snapshots if snapshot.revision >= tick.revision]
    return bool(since) and all(
        not snapshot.paused and any(one == trigger for one in _cron_triggers(snapshot)) for snapshot in since
    )


def _due(trigger: CronTrigger, first: float, now: float) -> tuple[list[float], float]:
    """The ticks that fire for a timer, with missed ones, and the time after which the next one is armed."""
    if trigger.catchup is Catchup.ALL:
        ticks = [first]
        while len(ticks) < trigger.catchup_limit:
            at = cron_expressions.trigger_tick(trigger, ticks[-1])
            if at is None or at > now:
                break
            ticks.append(at)
        else:
            return ticks, max(ticks[-1], now)
        return ticks, ticks[-1]
    latest = max(first, _latest(trigger, first, now))
    if trigger.catchup is Catchup.NONE and now - latest > MISSED_AFTER + trigger.jitter:
        return [], max(latest, now)
    return [latest], max(latest, now)


def _latest(trigger: CronTrigger, first: float, now: float) -> float:
    """The last tick up to now; `first` if none followed it."""
    if trigger.every:
        base = trigger.start or 0.0
        found = base + (now - base) // trigger.every * trigger.every
    else:
        found = cron_expressions.last_tick(trigger.cron, trigger.tz, now)
    return found if found > first and (trigger.end is None or found <= trigger.end) else first
