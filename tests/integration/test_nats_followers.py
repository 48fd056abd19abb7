"""Followers on a real server: everything in order, no duplicates, bounded batches."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import nats
import pytest
import pytest_asyncio

from penstock_adapters.nats import follower as follower_module
from penstock_adapters.nats.bus import Bus, BusError
from penstock_adapters.nats.follower import Follower, Followers
from penstock_core.errors import UnavailableError
from penstock_testkit.servers.nats import NatsServer

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bus(nats_server: NatsServer) -> AsyncGenerator[Bus]:
    holder: list[Bus] = []

    async def reconnected() -> None:
        holder[0].reconnected()

    client = await nats.connect(
        nats_server.url, max_reconnect_attempts=-1, reconnect_time_wait=0, reconnected_cb=reconnected, error_cb=quiet
    )
    holder.append(Bus(client))
    await holder[0].api("STREAM.CREATE.S", {"name": "S", "subjects": ["s.>"], "storage": "file", "allow_direct": True})
    yield holder[0]
    await client.close()


async def quiet(_: Exception) -> None:
    """Lost connections are expected in these tests."""


async def publish(bus: Bus, subject: str, *texts: str) -> list[int]:
    return [int((await bus.publish(subject, text.encode()))["seq"]) for text in texts]


async def take(follower: Follower, count: int) -> list[follower_module.StreamMessage]:
    found: list[follower_module.StreamMessage] = []
    async with asyncio.timeout(15):
        while len(found) < count:
            found += await follower.take(1.0)
    return found


async def test_stored_and_new_messages_are_followed(bus: Bus) -> None:
    first = await publish(bus, "s.a", "1", "2", "3")
    await publish(bus, "s.b", "other")
    async with Followers(bus).follow("S", ["s.a"]) as follower:
        assert follower.pending == 3
        found = await take(follower, 3)
        assert [item.seq for item in found] == first
        assert (found[0].subject, found[0].data, found[0].pending) == ("s.a", b"1", 2)
        assert follower.pending == 0
        waiting = asyncio.create_task(follower.take(5.0))
        await asyncio.sleep(0.05)
        [fourth] = await publish(bus, "s.a", "4")
        assert [item.seq for item in await waiting] == [fourth]
        assert await follower.take(0.02) == []
    async with Followers(bus).follow("S", ["s.a", "s.b"], first[1]) as follower:
        assert [item.data for item in await take(follower, 3)] == [b"3", b"other", b"4"]


async def test_more_than_a_batch_by_count_and_by_bytes(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower_module, "BATCH", 10)
    monkeypatch.setattr(follower_module, "MAX_BYTES", 4000)
    texts = [str(n) + "x" * (0 if n % 7 else 1500) for n in range(60)]
    await publish(bus, "s.many", *texts)
    async with Followers(bus).follow("S", ["s.many"]) as follower:
        assert [item.data.decode() for item in await take(follower, 60)] == texts


async def test_a_cancelled_take_loses_nothing(bus: Bus) -> None:
    async with Followers(bus).follow("S", ["s.cut"]) as follower:
        expected: list[int] = []
        found: list[follower_module.StreamMessage] = []
        for n in range(60):
            taking = asyncio.create_task(follower.take(5.0))
            expected += await publish(bus, "s.cut", str(n))
            for _ in range(n % 5):
                await asyncio.sleep(0)
            taking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                found += await taking
        if len(found) < 60:
            found += await take(follower, 60 - len(found))
        assert [item.seq for item in found] == expected


async def test_a_deleted_consumer_is_recreated_without_gap_or_duplicate(bus: Bus) -> None:
    followers = Followers(bus)
    async with followers.follow("S", ["s.gone"]) as follower:
        expected = await publish(bus, "s.gone", "1", "2")
        found = await take(follower, 2)
        for round_ in range(3):
            for name in (await bus.api("CONSUMER.NAMES.S"))["consumers"]:
                await bus.api(f"CONSUMER.DELETE.S.{name}")
            expected += await publish(bus, "s.gone", f"a{round_}", f"b{round_}")
            found += await take(follower, 2)
        assert [item.seq for item in found] == expected
    await asyncio.sleep(0.05)
    assert not (await bus.api("CONSUMER.NAMES.S"))["consumers"]


async def test_messages_lost_in_transit_are_detected(bus: Bus) -> None:
    async with Followers(bus).follow("S", ["s.lossy"]) as follower:
        receive: Any = follower._receive  # pyright: ignore[reportPrivateUsage]
        drop = {3, 4}
        seen = 0

        async def lossy(message: Any) -> None:
            nonlocal seen
            seen += 1
            if seen not in drop:
                await receive(message)

        subscription: Any = follower._subscription  # pyright: ignore[reportPrivateUsage]
        subscription._cb = lossy
        expected = await publish(bus, "s.lossy", *(str(n) for n in range(8)))
        assert [item.seq for item in await take(follower, 8)] == expected


async def test_a_killed_server(bus: Bus, nats_server: NatsServer) -> None:
    async with Followers(bus).follow("S", ["s.killed"]) as follower:
        expected = await publish(bus, "s.killed", "1", "2")
        found = await take(follower, 1)
        found += await take(follower, 2 - len(found)) if len(found) < 2 else []
        nats_server.kill()
        assert await follower.take(0.05) == []
        nats_server.start()
        async with asyncio.timeout(10):
            while not bus.client.is_connected:
                await asyncio.sleep(0.01)
        expected += await publish(bus, "s.killed", "3")
        found += await take(follower, 1)
        assert [item.seq for item in found] == expected


async def test_it_recovers_at_once_when_a_failed_attempt_hid_the_reconnection(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Followers(bus).follow("S", ["s.hidden"]) as follower:
        opens = follower.open

        async def fails_first() -> None:
            monkeypatch.setattr(follower, "open", opens)
            raise UnavailableError("the server stops")

        monkeypatch.setattr(follower, "open", fails_first)
        follower.reset()
        waiting = asyncio.create_task(follower.take(8.0))
        [seq] = await publish(bus, "s.hidden", "1")
        assert [item.seq for item in await waiting] == [seq]


async def test_a_nudge_only_ends_the_wait(bus: Bus) -> None:
    async with Followers(bus).follow("S", ["s.nudged"]) as follower:
        follower.nudge()
        waiting = asyncio.create_task(follower.take(5.0))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        follower.nudge()
        assert await asyncio.wait_for(waiting, 1) == []
        [seq] = await publish(bus, "s.nudged", "x")
        assert [item.seq for item in await take(follower, 1)] == [seq]


async def test_a_missing_stream(bus: Bus) -> None:
    with pytest.raises(BusError):
        async with Followers(bus).follow("NONE", ["s.a"]):
            pass
