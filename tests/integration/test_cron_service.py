"""The cron service on a real server: each tick starts one run, across changes, restarts and two replicas."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_adapters.cron_expressions import ScheduleError, last_tick, next_tick
from penstock_adapters.nats.buckets import versions
from penstock_adapters.nats.buckets.kv import Bucket
from penstock_adapters.nats.run_log import from_direct
from penstock_adapters.nats.server import EmbeddedServer
from penstock_contracts import subjects
from penstock_contracts.commands import EnvironmentInfo, Parked, Publication, Publications, Schedule, Tick, Version
from penstock_core.errors import UnavailableError
from penstock_core.facts import RunRequested
from penstock_core.pipeline import ir
from penstock_core.pipeline.values import Inline
from penstock_cron.app import build
from penstock_cron.settings import CronSettings
from penstock_servicekit import app
from penstock_servicekit.settings import ServiceSettings


@asynccontextmanager
async def cron(server: EmbeddedServer, home: Path) -> AsyncIterator[app.RunningServices]:
    settings = ServiceSettings(home=home, ack_wait=1.0)
    running = await app.compose(server.url, settings, {"cron": lambda link: build(link, CronSettings(home=home))})
    try:
        yield running
    finally:
        await app.stop(running, 5)


@asynccontextmanager
async def nats_server(home: Path) -> AsyncIterator[EmbeddedServer]:
    server = EmbeddedServer(home, fsync=False)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def put_version(running: app.RunningServices) -> None:
    pipeline = ir.Pipeline(name="nightly", params=(ir.Port(name="x"), ir.Port(name="y", required=False, default=7)))
    version = Version(
        project="default",
        name="nightly",
        version=1,
        digest="0" * 64,
        source="0" * 64,
        environment=EnvironmentInfo(version="3", digest="0" * 64),
        pipeline=pipeline,
        registered_at=0.0,
    )
    bucket = Bucket(running.bus, subjects.VERSIONS_BUCKET)
    await bucket.put(versions.key("default", "nightly", 1), versions.pack(version))
    published = Publications(latest=1, versions={1: Publication(at=0.0)})
    await bucket.put(versions.published_key("default", "nightly"), published.model_dump_json().encode())


async def put_schedule(running: app.RunningServices, expression: str = "* * * * * *", **more: object) -> None:
    schedule = Schedule.model_validate(
        {"name": "often", "pipeline": "nightly", "cron": expression, "inputs": {"x": 1}} | more
    )
    await Bucket(running.bus, subjects.SCHEDULES_BUCKET).put("often", schedule.model_dump_json().encode())


async def runs(running: app.RunningServices) -> list[RunRequested]:
    found = [from_direct(message) for message in await running.bus.read(subjects.RUNS, "runs.*.*.requested")]
    return [entry.fact for entry in found if entry and isinstance(entry.fact, RunRequested)]


async def wait_for_runs(running: app.RunningServices, count: int, seconds: float = 12.0) -> list[RunRequested]:
    deadline = time.monotonic() + seconds
    while len(found := await runs(running)) < count:
        assert time.monotonic() < deadline, f"only {len(found)} runs of {count}"
        await asyncio.sleep(0.1)
    return found


async def test_ticks_start_runs_until_the_schedule_is_deleted(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, cron(server, tmp_path) as running:
        await put_version(running)
        await put_schedule(running)
        found = await wait_for_runs(running, 3)
        ticks = [int(run.trigger["tick"]) for run in found]
        assert ticks == sorted(set(ticks))
        assert found[0].inputs == {"x": Inline(1), "y": Inline(7)}
        assert found[0].trigger["schedule"] == "often"
        await Bucket(running.bus, subjects.SCHEDULES_BUCKET).delete("often")
        await asyncio.sleep(1.2)
        count = len(await runs(running))
        await asyncio.sleep(2.2)
        assert len(await runs(running)) == count


async def test_two_replicas_request_each_run_once(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, cron(server, tmp_path) as running, cron(server, tmp_path):
        await put_version(running)
        await put_schedule(running)
        found = await wait_for_runs(running, 3)
        ticks = [run.trigger["tick"] for run in found]
        assert len(ticks) == len(set(ticks))


async def test_a_tick_missed_during_downtime_fires_once(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server:
        async with cron(server, tmp_path) as running:
            await put_version(running)
            await put_schedule(running)
            await wait_for_runs(running, 1)
        async with cron(server, tmp_path) as running:
            before = {run.trigger["tick"] for run in await runs(running)}
        await asyncio.sleep(3.0)
        again = time.time()
        async with cron(server, tmp_path) as running:
            found = await wait_for_runs(running, len(before) + 2)
            missed = min(int(run.trigger["tick"]) for run in found if run.trigger["tick"] not in before)
            assert missed >= int(again), "of the ticks that were missed the last one fires, not the first nor all"


async def test_schedule_changes_reach_two_running_replicas(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, cron(server, tmp_path) as running, cron(server, tmp_path):
        await put_version(running)
        for n in range(20):
            await put_schedule(running, f"0 {n} 1 1 *", inputs={"x": n})
        await put_schedule(running, inputs={"x": 99})
        [last, *_] = await wait_for_runs(running, 1)
        assert last.inputs["x"] == Inline(99)
        await put_schedule(running, "0 0 1 1 *")
        await asyncio.sleep(1.5)
        [armed] = await running.bus.read(subjects.TIMERS, "armed.often")
        assert Tick.model_validate_json(armed.data).at == next_tick("0 0 1 1 *", "UTC", time.time())


async def test_a_server_that_is_killed_loses_no_schedule(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, cron(server, tmp_path) as running:
        watch = asyncio.create_task(server.supervise())
        await put_version(running)
        await put_schedule(running)
        count = len(await wait_for_runs(running, 1))
        os.kill(server.pid, signal.SIGKILL)
        await asyncio.sleep(0.5)
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            with contextlib.suppress(UnavailableError):
                if len(await runs(running)) >= count + 2:
                    break
            await asyncio.sleep(0.1)
        else:
            pytest.fail("no tick after the server's return")
        await server.stop()
        await watch


async def test_a_paused_schedule_does_not_fire(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, cron(server, tmp_path) as running:
        await put_version(running)
        await put_schedule(running, paused=True)
        await asyncio.sleep(2.2)
        assert await runs(running) == []


@pytest.mark.parametrize(
    ("schedule", "why"),
    [
        ({"pipeline": "absent"}, "pipeline 'absent' has no published version"),
        ({"version": 9}, "no version 9"),
        ({"inputs": {}}, "inputs.x: is missing"),
        ({"inputs": {"x": 1, "z": 2}}, "inputs.z: is not a parameter of the pipeline"),
        ({"cron": "never"}, "not a cron expression"),
        ({"tz": "Mars/Olympus"}, "not a time zone"),
    ],
)
async def test_a_tick_without_a_run_records_its_reason(tmp_path: Path, schedule: dict[str, object], why: str) -> None:
    async with nats_server(tmp_path) as server, cron(server, tmp_path) as running:
        await put_version(running)
        expression = str(schedule.pop("cron", "* * * * * *"))
        await put_schedule(running, expression, **schedule)
        deadline = time.monotonic() + 6
        while not (parked := await running.bus.read(subjects.PARKED, "parked.cron")):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        assert why in Parked.model_validate_json(parked[0].data).error
        assert await runs(running) == []


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Europe/Paris")).timestamp()


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("0 3 * * *", "2026-06-01 12:00", "2026-06-02 03:00"),
        ("30 2 * * *", "2026-03-28 12:00", "2026-03-29 03:00"),  # skipped in spring: right after
        ("30 2 * * *", "2026-10-24 12:00", "2026-10-25 02:30"),  # repeated in autumn: once
        ("30 2 * * *", "2026-10-25 02:31", "2026-10-26 02:30"),
        ("0 0 29 2 *", "2026-01-01 00:00", "2028-02-29 00:00"),
    ],
)
def test_ticks_follow_the_clock_of_the_time_zone(expression: str, after: str, expected: str) -> None:
    assert next_tick(expression, "Europe/Paris", at(after)) == at(expected)


@pytest.mark.parametrize(
    ("expression", "upto", "expected"),
    [
        ("0 3 * * *", "2026-06-02 03:00", "2026-06-02 03:00"),
        ("0 3 * * *", "2026-06-02 02:59", "2026-06-01 03:00"),
        ("30 2 * * *", "2026-03-29 12:00", "2026-03-29 03:00"),
        ("30 2 * * *", "2026-03-29 01:30", "2026-03-28 02:30"),
        ("30 2 * * *", "2026-10-25 12:00", "2026-10-25 02:30"),
        ("0 0 29 2 *", "2027-01-01 00:00", "2024-02-29 00:00"),
    ],
)
def test_the_last_tick_follows_the_clock_of_the_time_zone(expression: str, upto: str, expected: str) -> None:
    assert last_tick(expression, "Europe/Paris", at(upto)) == at(expected)
    assert last_tick(expression, "Europe/Paris", at(upto) + 0.7) == at(expected)


@given(
    expression=st.sampled_from(["*/15 * * * *", "30 2 * * *", "0 * * * *", "15,45 1-3 * * *", "*/7 * * * * *"]),
    zone=st.sampled_from(["Europe/Paris", "America/New_York", "UTC", "Asia/Kathmandu"]),
    day=st.sampled_from(["2026-03-29", "2026-10-25", "2026-03-08", "2026-11-01", "2026-06-15"]),
    offset=st.floats(0, 6 * 3600),
)
def test_next_and_previous_ticks_agree(expression: str, zone: str, day: str, offset: float) -> None:
    moment = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone)).timestamp() + offset
    last = last_tick(expression, zone, moment)
    assert last <= moment < next_tick(expression, zone, last)
    assert next_tick(expression, zone, last - 1) == last


@pytest.mark.parametrize(("expression", "tz"), [("61 * * * *", "UTC"), ("", "UTC"), ("* * * * *", "../etc/passwd")])
def test_invalid_schedules_are_rejected(expression: str, tz: str) -> None:
    with pytest.raises(ScheduleError):
        next_tick(expression, tz, 0.0)
    with pytest.raises(ScheduleError):
        last_tick(expression, tz, 0.0)
