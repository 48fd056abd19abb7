"""Server-sent events: facts and logs as they happen, resumed without a gap, paced by the client."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from pathlib import Path

import pytest
from gateway_platform import (
    TOKEN,
    Http,
    Platform,
    attempt_finished,
    attempt_requested,
    attempt_started,
    read_chunk,
    read_head,
    running,
)

from penstock_contracts import subjects
from penstock_core.facts import Outcome
from penstock_core.pipeline.values import Inline
from penstock_gateway.http import sse

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def gone(platform: Platform, known: set[str]) -> None:
    """Wait until the server has only the consumers known before."""
    async with asyncio.timeout(5):
        while await platform.consumers() - known:
            await asyncio.sleep(0.01)


# ------------------------------------------------------------------------------------------------------------- events


async def test_a_stream_has_all_facts_of_a_run(platform: Platform, http: Http) -> None:
    run_id, other = await platform.request(), await platform.request()
    await platform.run_step(run_id, "double")
    stream = await http.stream(f"/v1/runs/{run_id}/events")
    await platform.run_step(other, "double")
    await platform.run_step(run_id, "double-2", metrics={"loss": 0.5})
    await platform.finish(run_id, outputs={"result": Inline(4)})
    found = await stream.all()
    assert [event.event for event in found] == [
        "run.requested",
        *["attempt.requested", "attempt.started", "attempt.finished"] * 2,
        "run.finished",
    ]
    records = await platform.log.read(run_id)
    assert [event.id for event in found] == [record.seq for record in records]
    assert [event.data["seq"] for event in found] == [record.seq for record in records]
    assert [event.data["at"] for event in found] == pytest.approx([record.at for record in records])
    assert found[-2].data["metrics"] == {"loss": 0.5}
    assert found[-1].data["outputs"] == {"result": {"value": 4}}
    assert {event.data["run_id"] for event in found} == {run_id}


async def test_events_arrive_immediately(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    stream = await http.stream(f"/v1/runs/{run_id}/events")
    await stream.next()
    took: list[float] = []
    for number in range(1, 31):
        began = time.perf_counter()
        await platform.log.append([attempt_started(run_id, "double", number)])
        event = await stream.next()
        took.append(time.perf_counter() - began)
        assert event
        assert event.data["attempt"] == number
    stream.close()
    # Measured: 1 to 2 ms. Polling would be slower every time: the next event is appended when the last one arrived.
    assert min(took) < 0.05, took


async def test_a_stream_resumes_from_the_last_event_id(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    await platform.run_step(run_id, "double")
    stream = await http.stream(f"/v1/runs/{run_id}/events")
    first = [await stream.next() for _ in range(2)]
    stream.close()
    await platform.run_step(run_id, "double-2")
    await platform.finish(run_id)
    assert first[1]
    rest = await (await http.stream(f"/v1/runs/{run_id}/events", first[1].id)).all()
    assert [event.id for event in rest] == [record.seq for record in await platform.log.read(run_id)][2:]
    # A client that has seen the end is told not to reconnect.
    for last in (rest[-1].id, rest[-1].id + 1000):
        answer = await http("GET", f"/v1/runs/{run_id}/events", headers={"last-event-id": str(last)})
        assert (answer.status, answer.body) == (204, b"")


@pytest.mark.parametrize("last", ["x", "-1", "1.5", "9" * 16, "²", "1;2"])
async def test_an_invalid_last_event_id_is_rejected(platform: Platform, http: Http, last: str) -> None:
    run_id = await platform.request()
    answer = await http("GET", f"/v1/runs/{run_id}/events", headers={"last-event-id": last})
    assert answer.status == 422
    assert answer.fields == {"header.last-event-id"}


async def test_an_unknown_run_has_no_stream(http: Http) -> None:
    for what in ("events", "logs"):
        assert (await http("GET", f"/v1/runs/unknown/{what}")).status == 404


async def test_a_long_history_is_streamed_completely(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    for first in range(1, 2001, 500):
        await platform.log.append([attempt_started(run_id, "double", first + n) for n in range(500)])
    await platform.finish(run_id)
    found = await (await http.stream(f"/v1/runs/{run_id}/events")).all()
    assert [event.data["attempt"] for event in found[1:-1]] == list(range(1, 2001))


async def test_unreadable_facts_are_shown_as_placeholders(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    await platform.log.append([attempt_requested(run_id, "double")])
    await platform.bus.publish(subjects.finished(run_id, "double", 1), b'{"not": "a fact"\n\n}')
    await platform.bus.publish(subjects.run(run_id, "step.x.y.odd"), b"noise")
    await platform.bus.publish(subjects.run(run_id, "finished"), b"\xff\n\ndata: forged\n\n")
    found = await (await http.stream(f"/v1/runs/{run_id}/events")).all()
    assert [event.event for event in found] == [
        "run.requested",
        "attempt.requested",
        "attempt.finished",
        "run.finished",
    ]
    assert (found[2].data["outcome"], found[2].data["error"]["type"]) == ("lost", "CorruptEvent")
    assert found[3].data["outcome"] == "failed"


async def test_user_text_cannot_forge_events(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    text = "x\r\n\r\nid: 999999\nevent: run.finished\ndata: {}\n\n\u2028"
    await platform.run_step(run_id, "double", {"result": Inline(text)})
    await platform.finish(run_id)
    found = await (await http.stream(f"/v1/runs/{run_id}/events")).all()
    assert [event.event for event in found].count("run.finished") == 1
    assert found[3].data["outputs"]["result"]["value"] == text


async def test_idle_streams_send_keepalive_comments(
    platform: Platform, http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "HEARTBEAT", 0.05)
    run_id = await platform.request()
    for what in ("events", "logs"):
        stream = await http.stream(f"/v1/runs/{run_id}/{what}")
        with pytest.raises(TimeoutError):
            while True:
                await stream.next(0.4)
        assert stream.comments >= 4
        stream.close()


# --------------------------------------------------------------------------------------------------- clients that leave


async def test_a_disconnected_client_releases_its_consumer(platform: Platform, http: Http) -> None:
    known = await platform.consumers()
    run_id = await platform.request()
    streams = [await http.stream(f"/v1/runs/{run_id}/{what}") for what in ("events", "logs") for _ in range(8)]
    for stream in streams[::2]:
        await stream.reader.readuntil(b"\n\n")
    assert len(await platform.consumers() - known) >= 10
    for stream in streams:
        stream.close()
    await gone(platform, known)


async def test_a_finished_stream_releases_its_consumer(platform: Platform, http: Http) -> None:
    known = await platform.consumers()
    run_id = await platform.request()
    await platform.finish(run_id)
    await (await http.stream(f"/v1/runs/{run_id}/events")).all()
    await (await http.stream(f"/v1/runs/{run_id}/logs")).all()
    await gone(platform, known)


async def test_a_slow_client_buffers_a_bounded_amount(platform: Platform, http: Http) -> None:
    """60 MB of facts for a client that reads nothing: the consumer delivers far less."""
    known = await platform.consumers()
    run_id = await platform.request()
    text = "x" * 300_000
    for first in range(1, 201, 20):
        facts = [attempt_finished(run_id, "double", first + n, outputs={"r": Inline(text)}) for n in range(20)]
        await platform.log.append(facts)
    stream = await http.stream(f"/v1/runs/{run_id}/events")
    name = next(iter(await platform.consumers() - known))
    handed = -1
    while True:
        info = await platform.bus.api(f"CONSUMER.INFO.{subjects.RUNS}.{name}")
        if info["delivered"]["consumer_seq"] == handed:
            break
        handed = info["delivered"]["consumer_seq"]
        await asyncio.sleep(0.3)
    assert 0 < handed * len(text) < 30_000_000
    # Nothing was lost meanwhile.
    await platform.finish(run_id)
    found = await stream.all(20)
    assert [event.data.get("attempt") for event in found[1:-1]] == list(range(1, 201))


async def test_a_client_that_never_reads_is_disconnected(tmp_path: Path) -> None:
    async with running(tmp_path, stream_timeout=0.3) as platform:
        run_id = await platform.request()
        for first in range(1, 101, 20):
            facts = [
                attempt_finished(run_id, "double", first + n, outputs={"r": Inline("x" * 300_000)}) for n in range(20)
            ]
            await platform.log.append(facts)
        stream = await Http(platform).stream(f"/v1/runs/{run_id}/events")
        await asyncio.sleep(0.2)
        assert await platform.consumers()
        await gone(platform, set())
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await stream.all()


async def unread(platform: Platform, path: str) -> socket.socket:
    """A connection that requests `path` and never reads."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", platform.gateway.port))
    head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    await loop.sock_sendall(client, head.encode())
    return client


@pytest.mark.parametrize("tail", ["events", "history"])
async def test_readers_that_never_read_cost_little_memory_and_then_nothing(tmp_path: Path, tail: str) -> None:
    """30 MB of facts for each of eight clients: a part of it is buffered, then their connections are closed."""
    async with running(tmp_path, stream_timeout=1.0) as platform:
        run_id = await platform.request()
        for first in range(1, 101, 20):
            facts = [
                attempt_finished(run_id, "double", first + n, outputs={"r": Inline("x" * 300_000)}) for n in range(20)
            ]
            await platform.log.append(facts)
        clients = [await unread(platform, f"/v1/runs/{run_id}/{tail}") for _ in range(8)]
        try:
            server = platform.gateway._server
            assert server is not None
            most = 0
            async with asyncio.timeout(90):
                while not most or server.server_state.connections:
                    for one in server.server_state.connections:
                        most = max(most, one.transport.get_write_buffer_size())
                    await asyncio.sleep(0.01)
            assert 0 < most <= 1024 * 1024
            assert not await platform.consumers()
        finally:
            for client in clients:
                client.close()


# ------------------------------------------------------------------------------------------------------------- faults


async def test_a_killed_nats_server_causes_no_gap_or_duplicate(tmp_path: Path) -> None:
    async with running(tmp_path) as platform:
        run_id = await platform.request()
        stream = await Http(platform).stream(f"/v1/runs/{run_id}/events")
        assert await stream.next()
        for number in range(1, 31):
            if number in (10, 20):
                await kill_nats(platform)
            await platform.log.append([attempt_started(run_id, "double", number)])
        await platform.finish(run_id)
        found = await stream.all(20)
        assert [event.id for event in found] == [record.seq for record in await platform.log.read(run_id)][1:]
        assert [event.data["attempt"] for event in found[:-1]] == list(range(1, 31))


async def kill_nats(platform: Platform) -> None:
    """Kill -9, and wait until the supervisor restarted it and the gateway reconnected."""
    before, reconnects = platform.server.pid, platform.bus.client.stats["reconnects"]
    os.kill(before, signal.SIGKILL)
    async with asyncio.timeout(60):
        while platform.server.pid == before or platform.bus.client.stats["reconnects"] == reconnects:
            await asyncio.sleep(0.001)


async def test_a_gateway_that_stops_ends_its_streams_in_order(tmp_path: Path) -> None:
    async with running(tmp_path) as platform:
        run_id = await platform.request()
        streams = [await Http(platform).stream(f"/v1/runs/{run_id}/{what}") for what in ("events", "logs")]
        assert await streams[0].next()
        began = time.perf_counter()
        await platform.gateway.stop()
        assert time.perf_counter() - began < sse.HEARTBEAT / 2
        for stream in streams:
            # The end of a chunked body, not a broken connection: the client knows that it may reconnect.
            assert await stream.next() is None
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", platform.gateway.port)


# --------------------------------------------------------------------------------------------------------------- logs


async def test_logs_so_far(platform: Platform, http: Http) -> None:
    run_id, other = await platform.request(), await platform.request()
    await platform.wrote(run_id, "double", "one")
    await platform.wrote(run_id, "double-2", "two")
    await platform.wrote(other, "double", "not ours")
    await platform.bus.publish(subjects.logs(run_id, "double", 1), b"\xff not json\n\n")
    await platform.wrote(run_id, "double", "three", first=1)
    found = await (await http.stream(f"/v1/runs/{run_id}/logs?follow=false")).all()
    assert [event.data["entries"][0]["text"] for event in found] == ["one", "two", "three"]
    assert {event.event for event in found} == {"output"}
    assert (found[2].data["key"], found[2].data["attempt"], found[2].data["first"]) == ("double", 1, 1)
    one = await (await http.stream(f"/v1/runs/{run_id}/logs?follow=false&step=double-2")).all()
    assert [event.id for event in one] == [found[1].id]
    rest = await (await http.stream(f"/v1/runs/{run_id}/logs?follow=false", found[1].id)).all()
    assert [event.id for event in rest] == [found[2].id]
    quiet = await platform.request()
    assert await (await http.stream(f"/v1/runs/{quiet}/logs?follow=false")).all() == []


async def test_logs_are_streamed_until_all_are_delivered(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    await platform.wrote(run_id, "double", "before")
    stream = await http.stream(f"/v1/runs/{run_id}/logs")
    assert (event := await stream.next())
    assert event.data["entries"][0]["text"] == "before"
    await platform.wrote(run_id, "double", "during")
    assert (event := await stream.next(1.0))
    assert event.data["entries"][0]["text"] == "during"
    await platform.finish(run_id, Outcome.FAILED)
    # Output shipped shortly after the end still belongs to the run.
    await platform.wrote(run_id, "double-2", "late")
    assert [event.data["entries"][0]["text"] for event in await stream.all()] == ["late"]


async def test_the_log_stream_of_a_finished_run_ends_soon(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    for number in range(600):
        await platform.wrote(run_id, "double", str(number), first=number)
    await platform.finish(run_id)
    began = time.perf_counter()
    found = await (await http.stream(f"/v1/runs/{run_id}/logs")).all()
    assert [event.data["first"] for event in found] == list(range(600))
    assert time.perf_counter() - began < sse.HEARTBEAT / 2


async def test_streams_send_their_headers_immediately(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    reader, writer = await http.open("GET", f"/v1/runs/{run_id}/logs")
    status, headers = await read_head(reader)
    assert status == 200
    assert headers["cache-control"] == "no-store"
    assert headers["x-accel-buffering"] == "no"
    assert (await read_chunk(reader)).startswith(b":")
    writer.close()
