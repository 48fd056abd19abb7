"""The cron service: arms one timer a schedule, and asks for a run when it fires.

In: schedules as they change, ticks as they fire. Out: runs asked for, the next tick armed.

Promises: a tick becomes exactly one run, or a stored reason why not, however often it is handled: the id of the run
is derived from the schedule and the tick. After a time without the platform the last of the ticks that were missed
fires once, late, and the schedule goes on from now. What is armed follows what is stored, whichever replicas handle
changes and ticks at the same time: whoever arms looks again afterwards whether the schedule is still the same.
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
    """What the cron service asks of its surroundings."""

    async def schedule(self, name: str) -> Entry | None:
        """A schedule as it is stored now."""
        ...

    async def schedules(self) -> list[Entry]:
        """All schedules."""
        ...

    async def armed(self, name: str) -> Tick | None:
        """The tick that is armed for a schedule."""
        ...

    async def arm(self, tick: Tick) -> None:
        """Have the broker deliver a tick at its time, instead of any other of that schedule."""
        ...

    async def disarm(self, name: str) -> None:
        """Have no tick for a schedule."""
        ...

    async def version(self, project: str, pipeline: str, version: int | None) -> Version | None:
        """A pipeline version; None: the latest published one."""
        ...

    async def models(self, project: str, names: Mapping[str, str]) -> dict[str, ArtifactRef | PenstockError]:
        """What references to registered models resolve to now, by parameter: an artifact, or the error."""
        ...

    async def limited_pools(self) -> frozenset[str]:
        """The pools whose size the platform limits."""
        ...

    async def request(self, run: RunRequested) -> bool:
        """Append the request of a run; False when it was there already."""
        ...

    async def refuse(self, subject: str, body: bytes, why: str) -> None:
        """Store that a tick or a schedule led to nothing, and why."""
        ...


class CronService:
    """Keeps every schedule armed."""

    def __init__(self, edges: Edges, clock: Callable[[], float]) -> None:
        self._edges = edges
        self._clock = clock
        self._refused: dict[str, int] = {}

    async def arm_all(self) -> None:
        """Make good whatever is not armed as it should be; to be called at start and from time to time."""
        for entry in await self._edges.schedules():
            if not await self._is_settled(entry):
                await self.settle(entry.key)

    async def settle(self, name: str, after: float | None = None) -> None:
        """Have the next tick of a schedule armed (after a time, else after now), or none if it shall not run."""
        entry = await self._edges.schedule(name)
        while True:
            if entry is None or not await self._arm(entry, self._clock() if after is None else after):
                await self._edges.disarm(name)
            again = await self._edges.schedule(name)
            if again == entry:
                return
            entry = again

    async def tick(self, body: bytes) -> None:
        """A timer fired.

        Raises:
            Unavailable: a part of the platform did not answer; the tick must come again.
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
            if not await self._is_settled(entry):
                await self.settle(entry.key)
            return
        schedule = await self._read(entry)
        if schedule is not None and not schedule.paused:
            missed = last_tick(schedule.cron, schedule.tz, self._clock())
            await self._fire(schedule, tick.model_copy(update={"at": max(tick.at, missed)}))
        await self.settle(entry.key, after=max(tick.at, self._clock()))

    async def _fire(self, schedule: Schedule, tick: Tick) -> None:
        version = await self._edges.version(schedule.project, schedule.pipeline, schedule.version)
        if version is None:
            wanted = f"version {schedule.version}" if schedule.version else "published version"
            await self._refuse(schedule, tick, f"there is no {wanted} of pipeline {schedule.pipeline!r}")
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
        """Arm the tick that follows `after`; False when the schedule shall have none."""
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

    async def _is_settled(self, entry: Entry) -> bool:
        """Whether what is armed fits a schedule, as far as can be seen without computing its ticks."""
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
        """Once a revision, however often it is looked at."""
        if self._refused.get(entry.key) != entry.revision:
            await self._edges.refuse(f"schedules.{entry.key}", entry.value, why)
            self._refused[entry.key] = entry.revision

    async def _refuse(self, schedule: Schedule, tick: Tick, why: str) -> None:
        await self._edges.refuse(f"ticks.{schedule.name}", orjson.dumps(tick.model_dump()), why)
