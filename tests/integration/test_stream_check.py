"""A store of a real server that is damaged at random places: whatever the server drops is noticed."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import nats
import pytest

from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.follower import Followers
from penstock_adapters.nats.stream_check import positions, unreadable, with_dropped
from penstock_core import integrity
from penstock_core.integrity import IntegrityRecord, StreamPosition
from penstock_testkit.servers.nats import NatsServer

pytestmark = pytest.mark.asyncio

MESSAGES = 400


async def contents(bus: Bus) -> dict[int, tuple[str, bytes]]:
    found: dict[int, tuple[str, bytes]] = {}
    async with Followers(bus).follow("S", [">"]) as follower:
        async for page in follower.read_to_end():
            found |= {item.seq: (item.subject, item.data) for item in page}
    return found


async def look(bus: Bus) -> tuple[dict[str, StreamPosition], list[int], dict[int, tuple[str, bytes]]]:
    now = await with_dropped(bus, await positions(bus, ["S"]))
    return now, await unreadable(bus, Followers(bus), "S"), await contents(bus)


def flip(file: Path, random: random.Random) -> None:
    data = bytearray(file.read_bytes())
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    file.write_bytes(data)


def truncate(file: Path, random: random.Random) -> None:
    with file.open("r+b") as opened:
        opened.truncate(random.randrange(file.stat().st_size))


async def connect(server: NatsServer) -> Bus:
    server.restart()
    return Bus(await nats.connect(server.url))


@pytest.mark.parametrize("stop", ["terminated", "killed"])
@pytest.mark.parametrize("damage", [flip, truncate])
async def test_whatever_a_server_drops_is_noticed(
    tmp_path: Path, damage: Callable[[Path, random.Random], None], stop: str
) -> None:
    chance = random.Random(f"{damage.__name__} {stop}")
    server = NatsServer(tmp_path / "server", sync_interval="always")
    server.start()
    bus = Bus(await nats.connect(server.url))
    await bus.api("STREAM.CREATE.S", {"name": "S", "subjects": ["s.>"], "storage": "file", "allow_direct": True})
    for n in range(MESSAGES):
        await bus.publish(f"s.{n % 40}.{n}", chance.randbytes(chance.randrange(400)))
    await bus.api("STREAM.MSG.DELETE.S", {"seq": 7})  # a legitimate gap is no damage
    before, lost, stored = await look(bus)
    assert not lost
    assert before["S"].messages == len(stored) == MESSAGES - 1
    await bus.client.close()
    server.stop() if stop == "terminated" else server.kill()
    good = tmp_path / "good"
    shutil.copytree(tmp_path / "server/store", good)
    noticed = 0
    try:
        for _ in range(6):
            shutil.rmtree(tmp_path / "server/store")
            shutil.copytree(good, tmp_path / "server/store")
            [file] = (tmp_path / "server/store").glob("jetstream/*/streams/S/msgs/*.blk")
            damage(file, chance)
            bus = await connect(server)
            now, lost, left = await look(bus)
            found = integrity.compare(IntegrityRecord(before), now, 1.0, ["S"])
            assert all(stored[seq] == message for seq, message in left.items()), "a message has changed"
            if len(left) < len(stored):
                assert found or lost, f"{len(stored) - len(left)} messages were lost silently"
                noticed += 1
            await bus.client.close()
            server.stop()
    finally:
        server.stop()
    assert noticed


async def test_an_undamaged_store_has_no_findings(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "server", sync_interval="always")
    server.start()
    try:
        bus = Bus(await nats.connect(server.url))
        await bus.api("STREAM.CREATE.S", {"name": "S", "subjects": ["s.>"], "storage": "file", "allow_direct": True})
        for n in range(50):
            await bus.publish(f"s.{n}", b"x")
        before, _, _ = await look(bus)
        await bus.client.close()
        for stop in (server.stop, server.kill):
            stop()
            bus = await connect(server)
            await bus.api("STREAM.PURGE.S", {"keep": 30 if stop == server.kill else 40})
            now, lost, _ = await look(bus)
            assert (integrity.compare(IntegrityRecord(before), now, 1.0), lost) == ([], [])
            await bus.client.close()
    finally:
        server.stop()
