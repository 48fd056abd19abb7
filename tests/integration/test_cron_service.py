"""The cron service on a real server: each tick is one event, across changes, restarts and two replicas."""

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
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_adapters.cron_expressions import ScheduleError, last_tick, next_tick
from penstock_adapters.nats.deployment_log import DeploymentLog
from penstock_adapters.nats.event_stream import EventStream
from penstock_adapters.nats.server import EmbeddedServer
from penstock_contracts import subjects
from penstock_contracts.commands import Tick
from penstock_core.deployments import state
from penstock_core.deployments.definition import CRON_TICK, CronTrigger, Definition
from penstock_core.deployments.facts import DeploymentDeleted, DeploymentPaused
from penstock_core.deployments.state import Actor
from penstock_core.errors import UnavailableError
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


async def deploy(running: app.RunningServices, *triggers: CronTrigger, name: str = "often") -> None:
    definition = Definition(pipeline="nightly", triggers=triggers)
    actor = Actor(by="user:ada", at=time.time())
    await DeploymentLog(running.bus, "test").change(
        "default", name, lambda found: state.apply(found, definition, actor)
    )


async def change(running: app.RunningServices, kind: Any, name: str = "often") -> None:
    actor = Actor(by="user:ada", at=time.time())
    await DeploymentLog(running.bus, "test").change("default", name, lambda found: state.change(found, kind, "", actor))


async def ticks(running: app.RunningServices) -> list[float]:
    found = await EventStream(running.bus).since("default", CRON_TICK, 0.0)
    return [datetime.fromisoformat(event.time).timestamp() for event in found]


async def wait_for_ticks(running: app.RunningServices, count: int, seconds: float = 30.0) -> list[float]:
    deadline = time.monotonic() + seconds
    while len(found := await ticks(running)) < count:
        assert time.monotonic() < deadline, f"only {len(found)} ticks of {count}"
        await asyncio.sleep(0.05)
    return found


async def armed(running: app.RunningServices) -> list[Tick]:
    messages = await running.bus.read(subjects.TIMERS, "armed.>")
    return [Tick.model_validate_json(message.data) for message in messages]


async def until_armed(running: app.RunningServices, expected: list[float]) -> None:
    deadline = time.monotonic() + 30
    while [tick.at for tick in await armed(running)] != expected:
        assert time.monotonic() < deadline, await armed(running)
        await asyncio.sleep(0.05)


EVERY_SECOND = CronTrigger(name="c", every=1)


async def test_ticks_are_published_until_the_deployment_is_deleted(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, cron(server, tmp_path) as running:
        await deploy(running, EVERY_SECOND)
        found = await wait_for_ticks(running, 3)
        assert found == sorted(set(found))
        assert all(at == int(at) for at in found)
        await change(running, DeploymentDeleted)
        await until_armed(running, [])
        count = len(await ticks(running))
        await asyncio.sleep(2.2)
        assert len(await ticks(running)) == count


async def test_two_replicas_publish_each_tick_once(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, cron(server, tmp_path) as running, cron(server, tmp_path):
        await deploy(running, EVERY_SECOND)
        found = await wait_for_ticks(running, 3)
        assert len(found) == len(set(found))


async def test_of_ticks_missed_during_downtime_the_last_one_fires(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server:
        async with cron(server, tmp_path) as running:
            await deploy(running, EVERY_SECOND)
            await wait_for_ticks(running, 1)
        stopped = time.time()
        await asyncio.sleep(3.0)
        again = time.time()
        async with cron(server, tmp_path) as running:
            found: list[float] = []
            while len(found) < 2:
                found = [at for at in await ticks(running) if at > stopped]
                await asyncio.sleep(0.02)
            assert min(found) >= int(again), "the last one fires, not the first nor all"


async def test_changes_reach_two_running_replicas(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, cron(server, tmp_path) as running, cron(server, tmp_path):
        for n in range(20):
            await deploy(running, CronTrigger(name="c", cron=f"{n} 0 1 1 *"))
        await deploy(running, EVERY_SECOND)
        await wait_for_ticks(running, 1)
        await deploy(running, CronTrigger(name="c", cron="0 0 1 1 *"), CronTrigger(name="d", cron="@yearly"))
        yearly = next_tick("0 0 1 1 *", "UTC", time.time())
        await until_armed(running, [yearly, yearly])
        await change(running, DeploymentPaused)
        await until_armed(running, [])


async def test_a_server_that_is_killed_loses_no_timer(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, cron(server, tmp_path) as running:
        watch = asyncio.create_task(server.supervise())
        await deploy(running, EVERY_SECOND)
        count = len(await wait_for_ticks(running, 1))
        os.kill(server.pid, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while True:
            assert time.monotonic() < deadline, "no tick after the server's return"
            with contextlib.suppress(UnavailableError):
                if len(await ticks(running)) >= count + 2:
                    break
            await asyncio.sleep(0.1)
        await server.stop()
        await watch


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
