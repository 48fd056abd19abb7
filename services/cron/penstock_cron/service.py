"""The cron service: arms one timer per schedule, and submits a run when it fires.

In: changed schedules, ticks. Out: run requests, the next ticks armed.

Promises: a tick becomes exactly one run, or a parked message with the reason, however often it is handled: the ID of
the run is derived from the schedule and the tick. After a downtime, only the last missed tick fires, late; then the
schedule continues from now. The armed tick always matches the stored schedule, whichever replicas handle changes and
ticks at the same time: after arming, the schedule is read again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import orjson
import pydantic

from penstock_adapters.cron_expressions import ScheduleError, last_tick, next_tick
from penstock_adapters.nats.buckets.kv import Entry
from penstock_contracts.commands import Schedule, Tick, Version
from penstock_core import access, ids, requests
from penstock_core.errors import InputError, InvalidIdError, PenstockError
from penstock_core.facts import RunRequested
from penstock_core.pipeline.values import ArtifactRef
from penstock_core.requests import Inputs, Options, Target


class Edges(Protocol):
    """The ports of the cron service."""

    async def schedule(self, name: str) -> Entry | None:
        """Return a schedule as it is stored now."""
        ...

    async def schedules(self) -> list[Entry]:
        """Return all schedules."""
        ...

    async def armed(self, name: str) -> Tick | None:
        """Return the armed tick of a schedule."""
        ...

    async def arm(self, tick: Tick) -> None:
        """Have the broker deliver a tick at its time; it replaces the armed tick of that schedule."""
        ...

    async def disarm(self, name: str) -> None:
        """Remove the armed tick of a schedule."""
        ...

    async def version(self, project: str, pipeline: str, version: int | None) -> Version | None:
        """Return a pipeline version; with None, the latest published one."""
        ...

    async def models(self, project: str, names: Mapping[str, str]) -> dict[str, ArtifactRef | PenstockError]:
        """Resolve references to registered models, by parameter: to an artifact, or to the error."""
        ...

    async def limited_pools(self) -> frozenset[str]:
        """Return the pools whose size is limited."""
        ...

    async def request(self, run: RunRequested) -> bool:
        """Append the request of a run; return False if it existed."""
        ...

    async def refuse(self, subject: str, body: bytes, why: str) -> None:
        """Park a tick or a schedule that cannot be used, with the reason."""
        ...


class CronService:
    """Keeps the next tick of every schedule armed."""

    def __init__(self, edges: Edges, clock: Callable[[], float]) -> None:
        self._edges = edges
        self._clock = clock
        self._refused: dict[str, int] = {}

    async def arm_all(self) -> None:
        """Arm every schedule whose armed tick does not match; called at start and periodically."""
        for entry in await self._edges.schedules():
            if not await self._is_armed(entry):
                await self.rearm(entry.key)

    async def rearm(self, name: str, after: float | None = None) -> None:
        """Arm the next tick of a schedule after a time, by default now; disarm a paused or deleted one."""
        entry = await self._edges.schedule(name)
        while True:
            if entry is None or not await self._arm(entry, self._clock() if after is None else after):
                await self._edges.disarm(name)
            again = await self._edges.schedule(name)
            if again == entry:
                return
            entry = again

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
        entry = await self._edges.schedule(tick.schedule)
        if entry is None:
            return
        if entry.revision != tick.revision:  # the schedule has changed since it was armed
            if not await self._is_armed(entry):
                await self.rearm(entry.key)
            return
        schedule = await self._read(entry)
        if schedule is not None and not schedule.paused:
            missed = last_tick(schedule.cron, schedule.tz, self._clock())
            await self._fire(schedule, tick.model_copy(update={"at": max(tick.at, missed)}))
        await self.rearm(entry.key, after=max(tick.at, self._clock()))

    async def _fire(self, schedule: Schedule, tick: Tick) -> None:
        version = await self._edges.version(schedule.project, schedule.pipeline, schedule.version)
        if version is None:
            missing = f"version {schedule.version}" if schedule.version else "published version"
            await self._refuse(schedule, tick, f"pipeline {schedule.pipeline!r} has no {missing}")
            return
        names = requests.model_references(version.pipeline.params, schedule.inputs)
        models = await self._edges.models(version.project, names)
        options = Options(
            trigger={"type": "cron", "schedule": schedule.name, "tick": f"{tick.at:.0f}"},
            requested_by=access.trigger(schedule.name),
        )
        run_id = ids.run_id_from_key(schedule.project, schedule.pipeline, f"\0cron:{schedule.name}:{tick.at:.0f}")
        target = Target(
            project=schedule.project,
            pipeline=version.pipeline,
            version=version.version,
            limited_pools=await self._edges.limited_pools(),
        )
        try:
            run = requests.build(run_id, target, Inputs(given=schedule.inputs, models=models), options, self._clock())
        except (InputError, InvalidIdError) as error:
            await self._refuse(schedule, tick, str(error))
            return
        await self._edges.request(run)

    async def _arm(self, entry: Entry, after: float) -> bool:
        """Arm the first tick after a time; return False if the schedule has none."""
        schedule = await self._read(entry)
        if schedule is None or schedule.paused:
            return False
        try:
            at = next_tick(schedule.cron, schedule.tz, after)
        except ScheduleError as error:
            await self._refuse_schedule(entry, str(error))
            return False
        await self._edges.arm(Tick(schedule=entry.key, revision=entry.revision, at=at))
        return True

    async def _is_armed(self, entry: Entry) -> bool:
        """Return whether the armed tick matches a schedule, without computing its ticks."""
        armed = await self._edges.armed(entry.key)
        if armed is not None:
            return armed.revision == entry.revision
        if self._refused.get(entry.key) == entry.revision:
            return True
        schedule = await self._read(entry)
        return schedule is None or schedule.paused

    async def _read(self, entry: Entry) -> Schedule | None:
        try:
            return Schedule.model_validate_json(entry.value)
        except pydantic.ValidationError as error:
            await self._refuse_schedule(entry, f"unreadable schedule: {error}")
            return None

    async def _refuse_schedule(self, entry: Entry, why: str) -> None:
        """Park a schedule once per revision."""
        if self._refused.get(entry.key) != entry.revision:
            await self._edges.refuse(f"schedules.{entry.key}", entry.value, why)
            self._refused[entry.key] = entry.revision

    async def _refuse(self, schedule: Schedule, tick: Tick, why: str) -> None:
        await self._edges.refuse(f"ticks.{schedule.name}", orjson.dumps(tick.model_dump()), why)
