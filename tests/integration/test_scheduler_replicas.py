"""Scheduler replicas on a real server: each shard has one holder, and a new one after it leaves or stops responding."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from pydantic import SecretStr

from penstock_adapters.nats.bus import Bus
from penstock_contracts import subjects
from penstock_contracts.commands import Replica, Replicas
from penstock_core import ids
from penstock_scheduler.app import SchedulerService, build
from penstock_scheduler.settings import SchedulerSettings
from penstock_servicekit import app
from penstock_testkit.servers.nats import NatsServer

ALL = set(range(ids.SHARDS))
NAME = "scheduler"


class Group:
    """Schedulers in this process, with separate connections."""

    def __init__(self, url: str) -> None:
        self.settings = SchedulerSettings(nats_url=SecretStr(url))
        self.url = url
        self.running: list[app.RunningServices] = []

    async def start(self) -> SchedulerService:
        running = await app.compose(self.url, self.settings, {NAME: lambda link: build(link, self.settings)})
        self.running.append(running)
        return service(running)

    async def stop(self, which: int = -1) -> None:
        await app.stop(self.running.pop(which), 20)

    async def die(self, which: int = -1) -> None:
        """Stop sending heartbeats."""

        async def nothing(word: str) -> None:
            pass

        presence = service(self.running[which])._presence
        presence._say = nothing  # type: ignore[method-assign]
        await self.stop(which)

    def held_shards(self) -> list[set[int]]:
        return [set(service(running).about()["shards"]) for running in self.running]

    def shared(self) -> bool:
        """Whether every shard has exactly one holder, and the shares are equal."""
        held = self.held_shards()
        sizes = {len(shards) for shards in held}
        return set().union(*held) == ALL and sum(map(len, held)) == len(ALL) and max(sizes) - min(sizes) <= 1


def service(running: app.RunningServices) -> SchedulerService:
    found = running.services[NAME]
    assert isinstance(found, SchedulerService)
    return found


def never_give_up(scheduler: SchedulerService) -> None:
    """This replica no longer detects silent ones."""
    scheduler._presence._members._silence = 1e9


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def group(nats_server: NatsServer) -> AsyncIterator[Group]:
    group = Group(nats_server.url)
    yield group
    while group.running:
        await group.stop()


async def test_a_single_replica_holds_all_shards_after_start(group: Group) -> None:
    scheduler = await group.start()
    assert group.held_shards() == [ALL]
    assert scheduler.ready()


async def test_joining_replicas_get_shards_and_leaving_ones_release_them(group: Group) -> None:
    for _ in range(4):
        await group.start()
    await until(group.shared)
    for running in group.running:
        never_give_up(service(running))
    while len(group.running) > 1:
        await group.stop(0)
        await until(group.shared)  # only by their leave messages
    assert group.held_shards() == [ALL]


async def test_shards_of_dead_replicas_are_reassigned(group: Group) -> None:
    for _ in range(3):
        await group.start()
    await until(group.shared)
    await group.die(1)
    assert not group.shared()
    await until(group.shared)


async def test_replicas_survive_a_server_outage(group: Group, nats_server: NatsServer) -> None:
    for _ in range(3):
        await group.start()
    await until(group.shared)
    before = group.held_shards()
    for running in group.running:
        service(running)._presence._members._silence = 0.5
    nats_server.kill()
    await asyncio.sleep(1.5)  # longer than the lease
    assert group.held_shards() == before
    for running in group.running:
        never_give_up(service(running))
    nats_server.restart()
    await until(lambda: all(running.bus.client.is_connected for running in group.running))
    assert group.held_shards() == before


async def test_every_replica_reports_all_members(group: Group, nats_server: NatsServer) -> None:
    for _ in range(3):
        await group.start()
    await until(group.shared)
    bus: Bus = group.running[0].bus

    async def members() -> list[Replica]:
        answer = await bus.request(subjects.SCHEDULER_REPLICAS, b"{}")
        return Replicas.model_validate_json(answer.data).replicas

    async with asyncio.timeout(30):
        while sorted(shard for replica in await members() for shard in replica.shards) != sorted(ALL):
            await asyncio.sleep(0.05)
    assert {replica.name for replica in await members()} == {
        service(running).about()["replica"] for running in group.running
    }


async def test_an_unreadable_heartbeat_is_ignored(group: Group) -> None:
    await group.start()
    bus: Bus = group.running[0].bus
    for body in (b"\xff", b"{}", b'{"name": "x", "shards": ["a"]}'):
        await bus.send(subjects.replicas(NAME), body)
    await bus.request(subjects.SCHEDULER_REPLICAS, b"{}")
    assert group.held_shards() == [ALL]
