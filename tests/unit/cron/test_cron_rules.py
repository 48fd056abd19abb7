"""The rules of the cron service without a broker: what is armed, what fires, whoever does what at the same time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_adapters.nats.kv import Entry
from penstock_adapters.ticks import next_tick
from penstock_contracts.commands import EnvironmentInfo, Schedule, Tick, Version
from penstock_core import ir
from penstock_core.facts import RunRequested
from penstock_core.registry.errors import NotThere
from penstock_core.registry.references import Reference
from penstock_core.values import ArtifactRef, Inline, Stored
from penstock_cron.service import CronService

HOURLY = "0 * * * *"


def unix(text: str) -> float:
    return datetime.fromisoformat(text + "+00:00").timestamp()


@dataclass
class World:
    """What replicas share; each call is a step that others may come before."""

    now: float = unix("2026-06-01 09:30")
    stored: dict[str, Entry] = field(default_factory=dict)
    timers: dict[str, Tick] = field(default_factory=dict)
    runs: dict[str, RunRequested] = field(default_factory=dict)
    refused: list[tuple[str, str]] = field(default_factory=list)
    revision: int = 0
    params: tuple[ir.Port, ...] = ()
    models: dict[str, ArtifactRef] = field(default_factory=dict)

    def put(self, name: str = "s", **more: Any) -> None:
        self.revision += 1
        schedule = Schedule.model_validate({"name": name, "pipeline": "p", "cron": HOURLY} | more)
        self.stored[name] = Entry(name, schedule.model_dump_json().encode(), self.revision)

    async def schedule(self, name: str) -> Entry | None:
        await asyncio.sleep(0)
        return self.stored.get(name)

    async def schedules(self) -> list[Entry]:
        await asyncio.sleep(0)
        return list(self.stored.values())

    async def armed(self, name: str) -> Tick | None:
        await asyncio.sleep(0)
        return self.timers.get(name)

    async def arm(self, tick: Tick) -> None:
        await asyncio.sleep(0)
        self.timers[tick.schedule] = tick

    async def disarm(self, name: str) -> None:
        await asyncio.sleep(0)
        self.timers.pop(name, None)

    async def version(self, project: str, pipeline: str, version: int | None) -> Version | None:
        await asyncio.sleep(0)
        if pipeline != "p":
            return None
        environment = EnvironmentInfo(python="/p", version="3", digest="0" * 64)
        return Version(
            project=project,
            name=pipeline,
            version=version or 7,
            digest="d",
            source="s",
            environment=environment,
            pipeline=ir.Pipeline(name="p", params=self.params),
            registered_at=0.0,
        )

    async def model(self, project: str, reference: Reference) -> ArtifactRef:
        await asyncio.sleep(0)
        if str(reference) not in self.models:
            raise NotThere(f"there is no model {reference.model!r}")
        return self.models[str(reference)]

    async def request(self, run: RunRequested) -> bool:
        await asyncio.sleep(0)
        return self.runs.setdefault(run.run_id, run) is run

    async def refuse(self, subject: str, body: bytes, why: str) -> None:
        await asyncio.sleep(0)
        self.refused.append((subject, why))

    def fire(self, name: str = "s") -> bytes:
        """The broker takes a timer away as it fires."""
        return self.timers.pop(name).model_dump_json().encode()

    def ticks(self) -> list[float]:
        return sorted(float(run.trigger["tick"]) for run in self.runs.values())


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def service(world: World) -> CronService:
    return CronService(world, lambda: world.now)


async def test_a_tick_asks_for_a_run_and_arms_the_next(world: World, service: CronService) -> None:
    world.put()
    await service.settle("s")
    assert world.timers["s"].at == unix("2026-06-01 10:00")
    world.now = unix("2026-06-01 10:00")
    await service.tick(world.fire())
    assert world.ticks() == [unix("2026-06-01 10:00")]
    [run] = world.runs.values()
    assert (run.pipeline, run.version, run.requested_at) == ("p", 7, world.now)
    assert world.timers["s"].at == unix("2026-06-01 11:00")


async def test_a_model_is_looked_up_at_each_tick(world: World, service: CronService) -> None:
    world.params = (ir.Port(name="model", type="Model"), ir.Port(name="text", type="str", schema={"type": "string"}))
    world.put(inputs={"model": "model:churn@champion", "text": "model:churn"})
    first, second = (ArtifactRef(sha256=digit * 64, size=1, media_type="x", format="pickle") for digit in ("a", "b"))
    for artifact in (first, second):
        world.models["churn@champion"] = artifact
        await service.arm_all()
        world.now = world.timers["s"].at
        await service.tick(world.fire())
    inputs = [world.runs[run].inputs for run in sorted(world.runs, key=lambda run: world.runs[run].requested_at)]
    assert inputs == [
        {"model": Stored(first), "text": Inline("model:churn")},
        {"model": Stored(second), "text": Inline("model:churn")},
    ]
    world.models.clear()
    world.now = world.timers["s"].at
    await service.tick(world.fire())
    assert world.refused == [("ticks.s", "there is no model 'churn'")]
    assert "s" in world.timers  # the next one may find it


async def test_of_the_missed_ticks_the_last_fires_once(world: World, service: CronService) -> None:
    world.put()
    await service.settle("s")
    body = world.fire()
    world.now = unix("2026-06-03 15:30")
    await service.tick(body)
    assert world.ticks() == [unix("2026-06-03 15:00")]
    assert world.timers["s"].at == unix("2026-06-03 16:00")


async def test_a_tick_that_is_delivered_again_changes_nothing(world: World, service: CronService) -> None:
    world.put()
    await service.settle("s")
    body = world.fire()
    world.now = unix("2026-06-01 10:00:05")
    for _ in range(3):
        await service.tick(body)
    assert world.ticks() == [unix("2026-06-01 10:00")]


async def test_a_clock_behind_the_brokers_arms_no_tick_twice(world: World, service: CronService) -> None:
    world.put()
    await service.settle("s")
    world.now = unix("2026-06-01 09:59:58")
    await service.tick(world.fire())
    assert world.ticks() == [unix("2026-06-01 10:00")]
    assert world.timers["s"].at == unix("2026-06-01 11:00")


async def test_an_old_tick_of_a_changed_schedule_fires_nothing_but_heals(world: World, service: CronService) -> None:
    world.put()
    await service.settle("s")
    body = world.fire()
    world.put(cron="30 * * * *")
    await service.tick(body)
    assert world.runs == {}
    assert world.timers["s"].at == unix("2026-06-01 10:30")
    assert world.timers["s"].revision == 2


async def test_a_paused_or_deleted_schedule_has_no_timer(world: World, service: CronService) -> None:
    world.put()
    await service.settle("s")
    world.put(paused=True)
    await service.settle("s")
    assert world.timers == {}
    world.put()
    await service.settle("s")
    body = world.fire()
    del world.stored["s"]
    await service.settle("s")
    await service.tick(body)
    assert (world.timers, world.runs) == ({}, {})


async def test_a_wrong_schedule_is_refused_once_a_revision(world: World, service: CronService) -> None:
    world.put(cron="61 * * * *")
    world.stored["garbage"] = Entry("garbage", b"\xff", 99)
    for _ in range(3):
        await service.arm_all()
        await service.settle("s")
    assert [subject for subject, _ in world.refused] == ["schedules.s", "schedules.garbage"]
    assert "61 * * * *" in world.refused[0][1]
    world.put(cron="62 * * * *")
    await service.arm_all()
    assert len(world.refused) == 3


async def test_garbage_for_a_tick_is_refused(world: World, service: CronService) -> None:
    await service.tick(b"\x00")
    [(subject, why)] = world.refused
    assert subject == "ticks"
    assert "unreadable tick" in why


async def test_a_look_at_all_arms_what_is_missing_and_leaves_the_rest(world: World, service: CronService) -> None:
    for n in range(3):
        world.put(f"s{n}")
    await service.arm_all()
    before = dict(world.timers)
    del world.timers["s1"]
    world.now += 60
    await service.arm_all()
    assert world.timers == before


class Steps:
    """One call of a replica, moved on step by step by hand."""

    def __init__(self, call: Coroutine[Any, Any, None]) -> None:
        self._steps = call.__await__()
        self.alive = True

    def step(self) -> None:
        with contextlib.suppress(StopIteration):
            next(self._steps)
            return
        self.alive = False


CHANGES = st.sampled_from([{}, {"cron": "30 * * * *"}, {"paused": True}, None])
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("change"), CHANGES),
        st.tuples(st.just("fire"), st.none()),
        st.tuples(st.just("step"), st.tuples(st.integers(0, 5), st.integers(1, 8))),
    ),
    max_size=30,
)


@settings(max_examples=300)
@given(EVENTS)
def test_what_is_armed_follows_what_is_stored(events: list[tuple[str, Any]]) -> None:
    """Changes and ticks come to any of two replicas, which work at the same time in any order of their steps."""
    world = World()
    replicas = [CronService(world, lambda: world.now) for _ in range(2)]
    calls: list[Steps] = []
    for n, (kind, what) in enumerate(events):
        service = replicas[n % 2]
        match kind:
            case "change":
                if what is None:
                    world.stored.pop("s", None)
                else:
                    world.put(**what)
                calls.append(Steps(service.settle("s")))
            case "fire":
                if "s" in world.timers:
                    world.now = max(world.now, world.timers["s"].at)
                    calls.append(Steps(service.tick(world.fire())))
            case _:
                alive = [call for call in calls if call.alive]
                index, steps = what
                for _ in range(steps if alive else 0):
                    call = alive[index % len(alive)]
                    if call.alive:
                        call.step()
    for call in reversed(calls):  # the oldest last: it has seen least
        while call.alive:
            call.step()
    while "s" in world.timers and world.timers["s"].at <= world.now:  # armed late, so the broker fires it at once
        call = Steps(replicas[0].tick(world.fire()))
        while call.alive:
            call.step()
    entry = world.stored.get("s")
    schedule = Schedule.model_validate_json(entry.value) if entry else None
    if entry is None or schedule is None or schedule.paused:
        assert world.timers == {}
    else:
        expected = Tick(schedule="s", revision=entry.revision, at=next_tick(schedule.cron, "UTC", world.now))
        assert world.timers == {"s": expected}
    assert len(world.ticks()) == len(set(world.ticks()))
