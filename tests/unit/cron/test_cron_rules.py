"""The rules of the cron service without a broker: armed timers, fired ticks, and concurrent replicas."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_adapters import cron_expressions
from penstock_contracts.commands import Tick
from penstock_core.deployments import state
from penstock_core.deployments.definition import Catchup, CronTrigger, Definition
from penstock_core.deployments.events import Event
from penstock_core.deployments.facts import DeploymentDeleted, DeploymentPaused, DeploymentResumed
from penstock_core.deployments.state import Actor, Deployment
from penstock_cron.service import CronService, Name

HOURLY = CronTrigger(name="c", cron="0 * * * *")
HALF_PAST = CronTrigger(name="c", cron="30 * * * *")
P = "default"


def unix(text: str) -> float:
    return datetime.fromisoformat(text + "+00:00").timestamp()


@dataclass
class SharedStore:
    """State shared by replicas; each call is a step that may interleave with others."""

    now: float = unix("2026-06-01 09:30")
    stored: dict[Name, Deployment] = field(default_factory=dict)
    timers: dict[tuple[str, str], tuple[Tick, float]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)

    def put(self, *triggers: CronTrigger, name: str = "s") -> None:
        found = self._deployment(name)
        for fact in state.apply(found, Definition(pipeline="p", triggers=triggers), self._actor()):
            state.evolve(found, fact.revision, fact)

    def change(self, kind: Any, name: str = "s") -> None:
        found = self._deployment(name)
        for fact in state.change(found, kind, "", self._actor()) if found.exists else []:
            state.evolve(found, fact.revision, fact)

    def _deployment(self, name: str) -> Deployment:
        return self.stored.setdefault((P, name), Deployment(P, name))

    def _actor(self) -> Actor:
        return Actor(by="user:ada", at=self.now)

    async def deployment(self, project: str, name: str) -> Deployment:
        await asyncio.sleep(0)
        found = self.stored.get((project, name)) or Deployment(project, name)
        return replace(found, snapshots=[*found.snapshots])

    async def deployments(self) -> dict[Name, Deployment]:
        await asyncio.sleep(0)
        return dict(self.stored)

    async def armed(self, name: Name | None = None) -> list[Tick]:
        await asyncio.sleep(0)
        return [tick for (owner, _), (tick, _) in self.timers.items() if name in (None, (P, owner))]

    async def arm(self, tick: Tick, at: float) -> None:
        await asyncio.sleep(0)
        self.timers[tick.deployment, tick.trigger] = tick, at

    async def disarm(self, tick: Tick) -> None:
        await asyncio.sleep(0)
        self.timers.pop((tick.deployment, tick.trigger), None)

    async def publish(self, event: Event) -> None:
        await asyncio.sleep(0)
        if event.id not in [known.id for known in self.events]:
            self.events.append(event)

    async def refuse(self, subject: str, body: bytes, why: str) -> None:
        await asyncio.sleep(0)
        self.refused.append((subject, why))

    def fire(self, name: str = "s", trigger: str = "c") -> bytes:
        """The broker removes a timer when it fires."""
        return self.timers.pop((name, trigger))[0].model_dump_json().encode()

    def at(self, name: str = "s", trigger: str = "c") -> float:
        return self.timers[name, trigger][1]

    def ticks(self) -> list[float]:
        return [datetime.fromisoformat(event.time).timestamp() for event in self.events]


@pytest.fixture
def store() -> SharedStore:
    return SharedStore()


@pytest.fixture
def service(store: SharedStore) -> CronService:
    return CronService(store, lambda: store.now)


async def test_a_tick_publishes_an_event_and_arms_the_next_tick(store: SharedStore, service: CronService) -> None:
    store.put(HOURLY)
    await service.rearm(P, "s")
    assert store.at() == unix("2026-06-01 10:00")
    store.now = unix("2026-06-01 10:00")
    await service.tick(store.fire())
    [event] = store.events
    assert (event.type, event.source, event.subject) == ("penstock.cron.tick.v1", "penstock/cron", "s/c")
    assert event.time == "2026-06-01T10:00:00.000Z"
    assert event.data == {"deployment": "s", "trigger": "c", "scheduled_at": event.time}
    assert store.at() == unix("2026-06-01 11:00")


@pytest.mark.parametrize(
    ("catchup", "expected"),
    [
        (Catchup.NONE, []),
        (Catchup.LATEST, ["2026-06-01 15:00"]),
        (Catchup.ALL, [f"2026-06-01 {hour}:00" for hour in (10, 11, 12, 13, 14, 15)]),
    ],
)
async def test_missed_ticks(store: SharedStore, service: CronService, catchup: Catchup, expected: list[str]) -> None:
    store.put(replace(HOURLY, catchup=catchup))
    await service.rearm(P, "s")
    body = store.fire()
    store.now = unix("2026-06-01 15:30")
    await service.tick(body)
    assert store.ticks() == [unix(text) for text in expected]
    assert store.at() == unix("2026-06-01 16:00")


async def test_the_number_of_missed_ticks_is_bounded(store: SharedStore, service: CronService) -> None:
    store.put(replace(HOURLY, catchup=Catchup.ALL, catchup_limit=2))
    await service.rearm(P, "s")
    body = store.fire()
    store.now = unix("2026-06-01 15:30")
    await service.tick(body)
    assert store.ticks() == [unix("2026-06-01 10:00"), unix("2026-06-01 11:00")]
    assert store.at() == unix("2026-06-01 16:00")


async def test_a_tick_that_is_a_little_late_is_not_missed(store: SharedStore, service: CronService) -> None:
    store.put(replace(HOURLY, catchup=Catchup.NONE))
    await service.rearm(P, "s")
    store.now = unix("2026-06-01 10:00:30")
    await service.tick(store.fire())
    assert store.ticks() == [unix("2026-06-01 10:00")]


async def test_a_redelivered_tick_changes_nothing(store: SharedStore, service: CronService) -> None:
    store.put(HOURLY)
    await service.rearm(P, "s")
    body = store.fire()
    store.now = unix("2026-06-01 10:00:05")
    for _ in range(3):
        await service.tick(body)
    assert store.ticks() == [unix("2026-06-01 10:00")]


async def test_a_clock_behind_the_brokers_arms_no_tick_twice(store: SharedStore, service: CronService) -> None:
    store.put(HOURLY)
    await service.rearm(P, "s")
    store.now = unix("2026-06-01 09:59:58")
    await service.tick(store.fire())
    assert store.ticks() == [unix("2026-06-01 10:00")]
    assert store.at() == unix("2026-06-01 11:00")


async def test_a_changed_trigger_never_fires_a_past_tick(store: SharedStore, service: CronService) -> None:
    store.put(HOURLY)
    await service.rearm(P, "s")
    body = store.fire()
    store.now = unix("2026-06-01 10:00:01")
    store.put(HALF_PAST)
    await service.tick(body)
    assert store.events == []
    assert store.at() == unix("2026-06-01 10:30")


async def test_a_change_that_leaves_the_trigger_keeps_its_tick(store: SharedStore, service: CronService) -> None:
    store.put(HOURLY)
    await service.rearm(P, "s")
    body = store.fire()
    store.put(HOURLY, replace(HALF_PAST, name="d"))
    store.now = unix("2026-06-01 10:00")
    await service.tick(body)
    assert store.ticks() == [unix("2026-06-01 10:00")]


async def test_a_paused_or_deleted_deployment_has_no_timers(store: SharedStore, service: CronService) -> None:
    store.put(HOURLY)
    await service.rearm(P, "s")
    store.change(DeploymentPaused)
    await service.rearm(P, "s")
    assert store.timers == {}
    store.now = unix("2026-06-01 12:30")
    store.change(DeploymentResumed)
    await service.rearm(P, "s")
    assert store.at() == unix("2026-06-01 13:00"), "ticks during a pause are not missed ones"
    body = store.fire()
    store.change(DeploymentDeleted)
    await service.rearm(P, "s")
    await service.tick(body)
    assert (store.timers, store.events) == ({}, [])


async def test_invalid_tick_messages_are_parked(store: SharedStore, service: CronService) -> None:
    await service.tick(b"\x00")
    [(subject, why)] = store.refused
    assert subject == "ticks"
    assert "unreadable tick" in why


async def test_the_check_arms_only_missing_timers(store: SharedStore, service: CronService) -> None:
    for n in range(3):
        store.put(HOURLY, name=f"s{n}")
    await service.arm_all()
    before = dict(store.timers)
    del store.timers["s1", "c"]
    store.now += 60
    await service.arm_all()
    assert store.timers == before


async def test_intervals_start_and_end(store: SharedStore, service: CronService) -> None:
    start, end = unix("2026-06-01 10:07"), unix("2026-06-01 10:40")
    store.put(CronTrigger(name="c", every=900, start=start, end=end))
    await service.rearm(P, "s")
    while store.timers:
        store.now = store.at()
        await service.tick(store.fire())
    assert store.ticks() == [start, start + 900, start + 1800]


async def test_jitter_delays_each_tick_by_its_own_time(store: SharedStore, service: CronService) -> None:
    store.put(replace(HOURLY, jitter=600))
    await service.rearm(P, "s")
    delays: list[float] = []
    for hour in (10, 11, 12):
        store.now = store.at()
        delays.append(store.now - unix(f"2026-06-01 {hour}:00"))
        await service.tick(store.fire())
    assert all(0 <= delay < 600 for delay in delays) and len(set(delays)) == 3
    assert store.ticks() == [unix(f"2026-06-01 {hour}:00") for hour in (10, 11, 12)]


class Steps:
    """One call of a replica, advanced step by step by the test."""

    def __init__(self, call: Coroutine[Any, Any, None]) -> None:
        self._steps = call.__await__()
        self.alive = True

    def step(self) -> None:
        with contextlib.suppress(StopIteration):
            next(self._steps)
            return
        self.alive = False


CHANGES = st.sampled_from([HOURLY, HALF_PAST, DeploymentPaused, DeploymentResumed, DeploymentDeleted])
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
def test_timers_follow_stored_deployments(events: list[tuple[str, Any]]) -> None:
    """Changes and ticks reach either of two replicas, whose steps interleave in any order."""
    store = SharedStore()
    replicas = [CronService(store, lambda: store.now) for _ in range(2)]
    calls: list[Steps] = []
    for n, (kind, what) in enumerate(events):
        service = replicas[n % 2]
        match kind:
            case "change":
                if isinstance(what, CronTrigger):
                    store.put(what)
                else:
                    store.change(what)
                calls.append(Steps(service.rearm(P, "s")))
            case "fire":
                if store.timers:
                    store.now = max(store.now, store.at())
                    calls.append(Steps(service.tick(store.fire())))
            case _:
                alive = [call for call in calls if call.alive]
                index, steps = what
                for _ in range(steps if alive else 0):
                    call = alive[index % len(alive)]
                    if call.alive:
                        call.step()
    for call in reversed(calls):  # the oldest last: it has the most outdated view
        while call.alive:
            call.step()
    while store.timers and store.at() <= store.now:  # armed late, so the broker fires it at once
        call = Steps(replicas[0].tick(store.fire()))
        while call.alive:
            call.step()
    deployment = store.stored.get((P, "s"))
    current = deployment.current if deployment else None
    if current is None or current.definition is None or current.paused:
        assert store.timers == {}
    else:
        [trigger] = current.definition.triggers
        assert isinstance(trigger, CronTrigger)
        assert store.at() == cron_expressions.trigger_tick(trigger, store.now)
    assert len(store.ticks()) == len(set(store.ticks()))
