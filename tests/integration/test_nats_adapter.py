"""The NATS adapter on a real server: bootstrap, append-once log, buckets, pulls, and a killed server."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from faststream.nats import NatsBroker
from nats.aio.msg import Msg

from penstock_adapters.nats import consumer
from penstock_adapters.nats.appender import Appender
from penstock_adapters.nats.bootstrap import bootstrap, consumers, streams
from penstock_adapters.nats.buckets.kv import Bucket
from penstock_adapters.nats.bus import Bus, BusError
from penstock_adapters.nats.consumer import Delivery, Puller
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_adapters.nats.server import EmbeddedServer, NatsServerError
from penstock_contracts import fact_codec, subjects
from penstock_core.errors import UnavailableError
from penstock_core.facts import AttemptFinished, AttemptRequested, CancelRequested, Outcome, RunRequested
from penstock_core.pipeline.values import Inline
from penstock_servicekit.nats_connection import AccessRefusedError, ConnectionFailedError, connect, servers


@asynccontextmanager
async def platform(home: Path) -> AsyncIterator[tuple[EmbeddedServer, Bus]]:
    """A server with all streams, and a connection."""
    server = EmbeddedServer(home, fsync=False)
    await server.start()
    watch = asyncio.create_task(server.supervise())
    failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    broker, bus = await connect(servers(server.url), "test", failed)
    try:
        await bootstrap(bus, pools=["default"], ack_wait=1.0)
        yield server, bus
    finally:
        await _stop(broker)
        await server.stop()
        await watch


@asynccontextmanager
async def _connection(server: EmbeddedServer) -> AsyncIterator[Bus]:
    broker, bus = await connect(servers(server.url), "other", asyncio.get_running_loop().create_future())
    try:
        yield bus
    finally:
        await _stop(broker)


async def _stop(broker: NatsBroker) -> None:
    await asyncio.wait_for(broker.stop(), 30)


def end(run: str, key: str = "a", attempt: int = 1, value: object = 1) -> AttemptFinished:
    return AttemptFinished(
        run_id=run, key=key, attempt=attempt, outcome=Outcome.SUCCEEDED, outputs={"result": Inline(value)}
    )


def request(run: str, key: str, pool: str = "default") -> AttemptRequested:
    return AttemptRequested(
        run_id=run, key=key, attempt=1, pool=pool, project="p", pipeline="q", version=1, entrypoint="m:f"
    )


async def test_bootstrap_is_idempotent_and_updates_what_differs(tmp_path: Path) -> None:
    async with platform(tmp_path) as (_, bus):
        await bootstrap(bus, pools=["default", "gpu"], ack_wait=2.5)
        info = await bus.api(f"CONSUMER.INFO.RUNS.{subjects.attempts_consumer('default')}")
        assert info["config"]["ack_wait"] == 2_500_000_000
        assert info["config"]["filter_subject"] == "runs.*.*.step.*.*.requested.default"
        await bus.api(f"CONSUMER.INFO.RUNS.{subjects.attempts_consumer('gpu')}")
        for settings in streams():
            created = (await bus.api(f"STREAM.INFO.{settings['name']}"))["created"]
            await bootstrap(bus, pools=["default", "gpu"], ack_wait=2.5)
            assert (await bus.api(f"STREAM.INFO.{settings['name']}"))["created"] == created
            break
        assert len(consumers(["default"])) == 17


async def test_the_first_fact_on_a_subject_wins(tmp_path: Path) -> None:
    async with platform(tmp_path) as (_, bus):
        log = NatsRunLog(bus, "test")
        assert await log.append([end("r1", value=1)]) == [True]
        assert await log.append([end("r1", value=2), end("r1", "b")]) == [False, True]
        facts = [entry.fact for entry in await log.read("r1")]
        assert [fact.key for fact in facts] == ["a", "b"]
        assert facts[0].outputs["result"] == Inline(1)


@pytest.mark.parametrize("known", [0, 1, 7, 60])
async def test_a_batch_rejected_for_duplicates_is_written_without_them(tmp_path: Path, known: int) -> None:
    async with platform(tmp_path) as (_, bus):
        log = NatsRunLog(bus, "test")
        facts = [end("r1", f"s-{n}") for n in range(60)]
        assert await log.append(facts[:known]) == [True] * known
        assert await log.append(facts) == [False] * known + [True] * (60 - known)
        assert len(await log.read("r1")) == 60


async def test_a_fact_that_is_twice_in_a_batch_is_written_once(tmp_path: Path) -> None:
    async with platform(tmp_path) as (_, bus):
        log = NatsRunLog(bus, "test")
        facts = [end("r1", f"s-{n}") for n in range(20)]
        assert await log.append([*facts, end("r1", "s-3", value="other")]) == [*[True] * 20, False]
        assert [entry.fact for entry in await log.read("r1")] == facts


async def test_more_facts_than_one_batch_or_page(tmp_path: Path) -> None:
    async with platform(tmp_path) as (_, bus):
        log = NatsRunLog(bus, "test")
        facts = [end("r1", f"s-{n}", value="x" * 200) for n in range(2345)]
        assert all(await log.append(facts))
        read = await log.read("r1")
        assert [entry.fact for entry in read] == facts
        assert [entry.seq for entry in await log.read("r1", after=read[2000].seq)] == [e.seq for e in read[2001:]]


async def test_a_read_ends_although_facts_are_appended_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with platform(tmp_path) as (_, bus):
        log = NatsRunLog(bus, "test")
        await log.append([end("r1", f"s-{n}") for n in range(1200)])
        page, pages = bus._page, itertools.count(1)

        async def slow_page(*query: Any) -> Any:
            number = next(pages)
            assert number < 10
            await log.append([end("r1", f"late-{number}-{n}") for n in range(600)])
            return await page(*query)

        monkeypatch.setattr(bus, "_page", slow_page)
        facts = [entry.fact for entry in await log.read("r1")]
        assert [fact.key for fact in facts[:1200]] == [f"s-{n}" for n in range(1200)]


async def test_concurrent_writers_have_one_winner(tmp_path: Path) -> None:
    async with platform(tmp_path) as (_, bus):
        log = NatsRunLog(bus, "test")
        batches = [[end("r1", f"s-{n}", value=writer) for n in range(30)] for writer in range(8)]
        results = await asyncio.gather(*(log.append(batch) for batch in batches))
        assert [sum(result[n] for result in results) for n in range(30)] == [1] * 30


async def test_unreadable_facts_are_read_as_placeholders(tmp_path: Path) -> None:
    async with platform(tmp_path) as (_, bus):
        log = NatsRunLog(bus, "test")
        await bus.publish(subjects.finished("r1", "a", 1), b"\xff not json")
        await log.append([end("r1", "b")])
        first, second = (entry.fact for entry in await log.read("r1"))
        assert isinstance(first, AttemptFinished)
        assert first.outcome is Outcome.LOST
        assert second == end("r1", "b")


async def test_a_fact_over_the_servers_limit_is_rejected_permanently(tmp_path: Path) -> None:
    async with platform(tmp_path) as (_, bus):
        with pytest.raises(BusError, match="the limit is"):
            await NatsRunLog(bus, "test").append([end("r1", value="x" * 9_000_000)])


async def test_bucket_writes_compare_and_set(tmp_path: Path) -> None:
    async with platform(tmp_path) as (_, bus):
        bucket = Bucket(bus, subjects.RETENTION_BUCKET)
        assert await bucket.get("a") is None
        first = await bucket.put("a", b"1", 0)
        assert first
        assert await bucket.put("a", b"2", 0) is None
        second = await bucket.put("a", b"2", first)
        assert second
        await bucket.put("b.c", b"3")
        assert {entry.key: entry.value for entry in await bucket.list()} == {"a": b"2", "b.c": b"3"}
        await bucket.delete("a")
        assert await bucket.get("a") is None
        assert [entry.key for entry in await bucket.list()] == ["b.c"]


async def _until(condition: object, seconds: float = 20.0) -> None:  # less than a pull request stays open
    async with asyncio.timeout(seconds):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.01)


def _first_tries(deliveries: list[Delivery]) -> set[str]:
    return {delivery.subject for delivery in deliveries if delivery.delivered == 1}


@asynccontextmanager
async def pulling(bus: Bus, want: int) -> AsyncIterator[tuple[Puller, list[Delivery]]]:
    got: list[Delivery] = []
    puller = Puller(bus, subjects.RUNS, subjects.attempts_consumer("default"), got.append)
    puller.want(want)
    task = asyncio.create_task(puller.run())
    try:
        yield puller, got
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_puller_fetches_at_most_its_free_slots(tmp_path: Path) -> None:
    async with platform(tmp_path) as (_, bus):
        await NatsRunLog(bus, "test").append([request("r1", f"s-{n}") for n in range(20)])
        in_flight: list[Delivery] = []
        seen: set[str] = set()

        def receive(delivery: Delivery) -> None:
            in_flight.append(delivery)
            seen.add(delivery.subject)
            puller.want(3 - len(in_flight))

        puller = Puller(bus, subjects.RUNS, subjects.attempts_consumer("default"), receive)
        task = asyncio.create_task(puller.run())
        puller.want(3)
        while len(seen) < 20:
            await _until(lambda: len(in_flight) == min(3, 20 - len(seen) + len(in_flight)))
            await asyncio.sleep(0.05)
            assert len(in_flight) <= 3
            await consumer.ack(bus, in_flight.pop())
            puller.want(3 - len(in_flight))
        task.cancel()
        await asyncio.wait([task])


async def test_a_lost_connection_does_not_exceed_the_free_slots(tmp_path: Path) -> None:
    got: list[Delivery] = []

    def receive(delivery: Delivery) -> None:
        got.append(delivery)
        puller.want(max(0, 3 - len(got)))

    async with platform(tmp_path) as (server, bus), _connection(server) as other:
        puller = Puller(bus, subjects.RUNS, subjects.attempts_consumer("default"), receive)
        puller.want(3)
        task = asyncio.create_task(puller.run())
        for _ in range(2):
            await asyncio.sleep(0.2)
            before = bus.client.stats["reconnects"]
            bus.client._transport._io_writer.transport.abort()  # the server keeps running
            await _until(lambda before=before: bus.client.stats["reconnects"] > before)
        await asyncio.sleep(0.2)
        await NatsRunLog(other, "test").append([request("r1", f"s-{n}") for n in range(20)])
        await _until(lambda: len(got) >= 3)
        await asyncio.sleep(0.3)
        assert len(got) == 3
        task.cancel()
        await asyncio.wait([task])


async def test_a_request_fails_when_its_connection_is_lost(tmp_path: Path) -> None:
    async with platform(tmp_path) as (server, bus), _connection(server) as other:
        received = asyncio.Event()

        async def never_reply(_: Msg) -> None:
            received.set()

        await other.subscribe("silent", never_reply)
        await other.api("INFO")  # unlike a flush, its reply shows that the server knows the subscription
        asked = asyncio.create_task(bus.request("silent", timeout=250))
        await received.wait()
        bus.client._transport._io_writer.transport.abort()  # the server keeps running
        with pytest.raises(UnavailableError, match="the connection to NATS is lost"):
            await asyncio.wait_for(asked, 60)
        assert (await bus.api("STREAM.INFO.RUNS"))["config"]["name"] == "RUNS"


async def test_a_withdrawn_pull_request_frees_messages_for_others_at_once(tmp_path: Path) -> None:
    async with platform(tmp_path) as (server, bus), _connection(server) as other, pulling(bus, 500) as (first, early):
        log = NatsRunLog(other, "test")
        await log.append([request("r1", f"early-{n}") for n in range(10)])
        await _until(lambda: len(early) == 10)
        async with pulling(other, 500) as (_, late):
            sending = asyncio.create_task(log.append([request("r1", f"s-{n}") for n in range(1000)]))
            first.want(0)
            await sending
            await _until(lambda: len(_first_tries(early + late)) == 1010)  # nothing was lost in transit
            count = len(early)
            await log.append([request("r1", f"late-{n}") for n in range(50)])
            await _until(lambda: len(_first_tries(early + late)) == 1060)
            assert len(early) == count
        first.want(5)
        await log.append([request("r1", "again")])
        await _until(lambda: any("again" in delivery.subject for delivery in early))


async def test_a_stopping_puller_receives_messages_in_transit(tmp_path: Path) -> None:
    async with platform(tmp_path) as (server, bus), _connection(server) as other:
        log = NatsRunLog(other, "test")
        async with pulling(bus, 500) as (_, early):
            sending = asyncio.create_task(log.append([request("r1", f"s-{n}") for n in range(1000)]))
            await _until(lambda: len(early) > 0)
        async with pulling(other, 500) as (_, late):
            await sending
            await _until(lambda: len(_first_tries(early + late)) == 1000)


async def test_unacknowledged_messages_are_redelivered_and_naks_are_delayed(tmp_path: Path) -> None:
    async with platform(tmp_path) as (_, bus):
        await NatsRunLog(bus, "test").append([request("r1", "a"), request("r1", "b")])
        async with pulling(bus, 10) as (_, got):
            await _until(lambda: len(got) == 2)
            first, second = got
            assert (first.delivered, first.consumer_seq, second.consumer_seq) == (1, 1, 2)
            await consumer.nak(bus, first, 0.3)
            await consumer.ack(bus, second)
            began = asyncio.get_running_loop().time()
            await _until(lambda: len(got) == 3)
            assert asyncio.get_running_loop().time() - began > 0.2
            assert (got[2].subject, got[2].delivered, got[2].consumer_seq) == (first.subject, 2, 3)
            await _until(lambda: len(got) == 4)  # never acknowledged: redelivered after one second
            assert got[3].delivered == 3


async def test_everything_resumes_after_a_killed_server_restarts(tmp_path: Path) -> None:
    async with platform(tmp_path) as (server, bus):
        log = NatsRunLog(bus, "test")
        errors: list[Exception] = []
        appender = Appender(log, errors.append)
        task = asyncio.create_task(appender.run())
        async with pulling(bus, 100) as (_, got):
            assert await appender.submit(request("r1", "before"))
            await _until(lambda: len(got) == 1)
            before = server.pid
            os.kill(before, signal.SIGKILL)
            futures = [appender.submit(request("r1", f"s-{n}")) for n in range(30)]
            results = await asyncio.wait_for(asyncio.gather(*futures), 30)
            assert all(results)
            assert server.pid != before
            await _until(lambda: {f"s-{n}" for n in range(30)} <= {d.subject.split(".")[4] for d in got}, 15)
            assert len(await log.read("r1")) == 31
        task.cancel()
        await asyncio.wait([task])


async def test_a_missing_server_is_reported(tmp_path: Path) -> None:
    failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    with pytest.raises(ConnectionFailedError, match=r"127\.0\.0\.1:1 cannot be reached"):
        await connect(servers("nats://secret@127.0.0.1:1"), "test", failed)


async def test_a_wrong_token_is_reported(tmp_path: Path) -> None:
    async with platform(tmp_path) as (server, _):
        failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        wrong = "nats://wrong@" + server.url.rpartition("@")[2]
        with pytest.raises(AccessRefusedError, match="refuses the credentials in PENSTOCK_NATS_URL"):
            await connect(servers(wrong), "test", failed)


async def test_a_server_that_cannot_start_reports_why(tmp_path: Path) -> None:
    (tmp_path / "nats").mkdir()
    (tmp_path / "nats" / "jetstream").write_text("in the way")
    with pytest.raises(NatsServerError, match="nats-server"):
        await EmbeddedServer(tmp_path).start(timeout=5)


async def test_unanswered_requests_raise_unavailable(tmp_path: Path) -> None:
    async with platform(tmp_path) as (_, bus):
        with pytest.raises(UnavailableError, match="there is no subscriber on"):
            await bus.request("commands.nobody.home")


def test_every_fact_subject_round_trips() -> None:
    facts = [
        RunRequested(run_id="r1", project="p", pipeline="q", version=1),
        CancelRequested(run_id="r1"),
        request("r1", "features/split-2[3]"),
        end("r1", "a"),
    ]
    for fact in facts:
        assert fact_codec.decode(fact_codec.subject(fact), fact_codec.encode(fact)) == fact
