"""The rules of the cron service without a broker: armed timers, fired ticks, and concurrent replicas."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_adapters.cron_expressions import next_tick
from penstock_adapters.nats.buckets.kv import Entry
from penstock_contracts.commands import EnvironmentInfo, Schedule, Tick, Version
from penstock_core import requests
from penstock_core.errors import InvalidInputsError, PenstockError
from penstock_core.facts import RunRequested
from penstock_core.pipeline import ir
from penstock_core.pipeline.values import ArtifactRef, Inline, Stored
from penstock_core.registry.errors import NotFoundError
from penstock_core.requests import Inputs, Options, Target
from penstock_cron.service import CronService

HOURLY = "0 * * * *"


def unix(text: str) -> float:
    return datetime.fromisoformat(text + "+00:00").timestamp()


@dataclass
class SharedStore:
    """State shared by replicas; each call is a step that may interleave with others."""

    now: float = unix("2026-06-01 09:30")
    stored: dict[str, Entry] = field(default_factory=dict)
    timers: dict[str, Tick] = field(default_factory=dict)
    runs: dict[str, RunRequested] = field(default_factory=dict)
    refused: list[tuple[str, str]] = field(default_factory=list)
    revision: int = 0
    params: tuple[ir.Port, ...] = ()
    registered: dict[str, ArtifactRef] = field(default_factory=dict)

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
        environment = EnvironmentInfo(version="3", digest="0" * 64)
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

    async def models(self, project: str, names: Mapping[str, str]) -> dict[str, ArtifactRef | PenstockError]:
        await asyncio.sleep(0)
        absent = {name: NotFoundError(f"there is no model {text!r}") for name, text in names.items()}
        return {**absent, **{name: self.registered[text] for name, text in names.items() if text in self.registered}}

    async def limited_pools(self) -> frozenset[str]:
        await asyncio.sleep(0)
        return frozenset()

    async def request(self, run: RunRequested) -> bool:
        await asyncio.sleep(0)
        return self.runs.setdefault(run.run_id, run) is run

    async def refuse(self, subject: str, body: bytes, why: str) -> None:
        await asyncio.sleep(0)
        self.refused.append((subject, why))

    def fire(self, name: str = "s") -> bytes:
        """The broker removes a timer when it fires."""
        return self.timers.pop(name).model_dump_json().encode()

    def ticks(self) -> list[float]:
        return sorted(float(run.trigger["tick"]) for run in self.runs.values())


@pytest.fixture
def store() -> SharedStore:
    return SharedStore()


@pytest.fixture
def service(store: SharedStore) -> CronService:
    return CronService(store, lambda: store.now)


async def test_a_tick_requests_a_run_and_arms_the_next_tick(store: SharedStore, service: CronService) -> None:
    store.put()
    await service.rearm("s")
    assert store.timers["s"].at == unix("2026-06-01 10:00")
    store.now = unix("2026-06-01 10:00")
    await service.tick(store.fire())
    assert store.ticks() == [unix("2026-06-01 10:00")]
    [run] = store.runs.values()
    assert (run.pipeline, run.version, run.requested_at) == ("p", 7, store.now)
    assert store.timers["s"].at == unix("2026-06-01 11:00")


async def test_model_references_are_resolved_at_each_tick(store: SharedStore, service: CronService) -> None:
    store.params = (ir.Port(name="model", type="Model"), ir.Port(name="text", type="str", schema={"type": "string"}))
    store.put(inputs={"model": "model:churn@champion", "text": "model:churn"})
    first, second = (ArtifactRef(sha256=digit * 64, size=1, media_type="x", format="pickle") for digit in ("a", "b"))
    for artifact in (first, second):
        store.registered["churn@champion"] = artifact
        await service.arm_all()
        store.now = store.timers["s"].at
        await service.tick(store.fire())
    inputs = [store.runs[run].inputs for run in sorted(store.runs, key=lambda run: store.runs[run].requested_at)]
    assert inputs == [
        {"model": Stored(first), "text": Inline("model:churn")},
        {"model": Stored(second), "text": Inline("model:churn")},
    ]
    store.registered.clear()
    store.now = store.timers["s"].at
    await service.tick(store.fire())
    why = "inputs.model: does not refer to a registered model: there is no model 'churn@champion'"
    assert store.refused == [("ticks.s", f"Invalid run request for pipeline 'p': {why}")]


async def test_wrong_inputs_are_refused_with_the_text_of_every_run_request(
    store: SharedStore, service: CronService
) -> None:
    store.params = (ir.Port(name="n", type="int", schema={"type": "integer"}),)
    store.put(inputs={"n": "3", "m": 1})
    await service.arm_all()
    store.now = store.timers["s"].at
    await service.tick(store.fire())
    target = Target(project="default", pipeline=ir.Pipeline(name="p", params=store.params), version=7)
    with pytest.raises(InvalidInputsError) as caught:
        requests.build("r", target, Inputs(given={"n": "3", "m": 1}), Options(trigger={}), store.now)
    assert store.refused == [("ticks.s", str(caught.value))] and not store.runs
    assert "s" in store.timers  # the next one may find it


async def test_only_the_last_missed_tick_fires_once(store: SharedStore, service: CronService) -> None:
    store.put()
    await service.rearm("s")
    body = store.fire()
    store.now = unix("2026-06-03 15:30")
    await service.tick(body)
    assert store.ticks() == [unix("2026-06-03 15:00")]
    assert store.timers["s"].at == unix("2026-06-03 16:00")


async def test_a_redelivered_tick_changes_nothing(store: SharedStore, service: CronService) -> None:
    store.put()
    await service.rearm("s")
    body = store.fire()
    store.now = unix("2026-06-01 10:00:05")
    for _ in range(3):
        await service.tick(body)
    assert store.ticks() == [unix("2026-06-01 10:00")]


async def test_a_clock_behind_the_brokers_arms_no_tick_twice(store: SharedStore, service: CronService) -> None:
    store.put()
    await service.rearm("s")
    store.now = unix("2026-06-01 09:59:58")
    await service.tick(store.fire())
    assert store.ticks() == [unix("2026-06-01 10:00")]
    assert store.timers["s"].at == unix("2026-06-01 11:00")


async def test_a_stale_tick_of_a_changed_schedule_only_rearms(store: SharedStore, service: CronService) -> None:
    store.put()
    await service.rearm("s")
    body = store.fire()
    store.put(cron="30 * * * *")
    await service.tick(body)
    assert store.runs == {}
    assert store.timers["s"].at == unix("2026-06-01 10:30")
    assert store.timers["s"].revision == 2


async def test_a_paused_or_deleted_schedule_has_no_timer(store: SharedStore, service: CronService) -> None:
    store.put()
    await service.rearm("s")
    store.put(paused=True)
    await service.rearm("s")
    assert store.timers == {}
    store.put()
    await service.rearm("s")
    body = store.fire()
    del store.stored["s"]
    await service.rearm("s")
    await service.tick(body)
    assert (store.timers, store.runs) == ({}, {})


async def test_an_invalid_schedule_is_reported_once_per_revision(store: SharedStore, service: CronService) -> None:
    store.put(cron="61 * * * *")
    store.stored["garbage"] = Entry("garbage", b"\xff", 99)
    for _ in range(3):
        await service.arm_all()
        await service.rearm("s")
    assert [subject for subject, _ in store.refused] == ["schedules.s", "schedules.garbage"]
    assert "61 * * * *" in store.refused[0][1]
    store.put(cron="62 * * * *")
    await service.arm_all()
    assert len(store.refused) == 3


async def test_invalid_tick_messages_are_rejected(store: SharedStore, service: CronService) -> None:
    await service.tick(b"\x00")
    [(subject, why)] = store.refused
    assert subject == "ticks"
    assert "unreadable tick" in why


async def test_reconciliation_arms_only_missing_timers(store: SharedStore, service: CronService) -> None:
    for n in range(3):
        store.put(f"s{n}")
    await service.arm_all()
    before = dict(store.timers)
    del store.timers["s1"]
    store.now += 60
    await service.arm_all()
    assert store.timers == before


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
def test_timers_follow_stored_schedules(events: list[tuple[str, Any]]) -> None:
    """Changes and ticks reach either of two replicas, whose steps interleave in any order."""
    store = SharedStore()
    replicas = [CronService(store, lambda: store.now) for _ in range(2)]
    calls: list[Steps] = []
    for n, (kind, what) in enumerate(events):
        service = replicas[n % 2]
        match kind:
            case "change":
                if what is None:
                    store.stored.pop("s", None)
                else:
                    store.put(**what)
                calls.append(Steps(service.rearm("s")))
            case "fire":
                if "s" in store.timers:
                    store.now = max(store.now, store.timers["s"].at)
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
    while "s" in store.timers and store.timers["s"].at <= store.now:  # armed late, so the broker fires it at once
        call = Steps(replicas[0].tick(store.fire()))
        while call.alive:
            call.step()
    entry = store.stored.get("s")
    schedule = Schedule.model_validate_json(entry.value) if entry else None
    if entry is None or schedule is None or schedule.paused:
        assert store.timers == {}
    else:
        expected = Tick(schedule="s", revision=entry.revision, at=next_tick(schedule.cron, "UTC", store.now))
        assert store.timers == {"s": expected}
    assert len(store.ticks()) == len(set(store.ticks()))
