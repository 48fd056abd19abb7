"""`GET /v1/runs/{id}/history`: the pipeline and the facts of a run as JSON lines, complete and in bounded memory."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import orjson
import pytest
from gateway_platform import Http, Platform, attempt_finished, attempt_started, chain, read_chunk, read_head, running

from penstock_contracts import subjects
from penstock_core.facts import Outcome
from penstock_core.pipeline.values import Inline
from penstock_testkit import histories

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_history_contains_the_log_and_can_be_loaded(platform: Platform, http: Http, tmp_path: Path) -> None:
    run_id, other = await platform.request(), await platform.request()
    await platform.run_step(run_id, "double", metrics={"loss": 0.5})
    await platform.run_step(other, "double")
    await platform.run_step(run_id, "double-2", outputs={"result": Inline(2**70)})
    await platform.finish(run_id, outputs={"result": Inline(2**70)})
    answer = await http("GET", f"/v1/runs/{run_id}/history")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/x-ndjson")
    assert answer.headers["content-disposition"] == f'attachment; filename="{run_id}.jsonl"'
    header, *lines = answer.body.splitlines()
    assert orjson.loads(header).keys() == {"penstock_history", "run_id", "project", "pipeline", "version"}
    assert orjson.loads(lines[0]).keys() == {"seq", "at", "type", "fact"}
    (tmp_path / "run.jsonl").write_bytes(answer.body)
    history = histories.load(tmp_path / "run.jsonl")
    assert history.pipeline == chain()
    records = await platform.log.read(run_id)
    assert history.facts == [record.fact for record in records]
    assert [record.seq for record in history.recorded] == [record.seq for record in records]
    assert [record.at for record in history.recorded] == pytest.approx([record.at for record in records])
    assert history.states() == {"double": "succeeded", "double-2": "succeeded"}


async def test_a_running_run_is_exported_up_to_now(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    await platform.run_step(run_id, "double")
    answer = await http("GET", f"/v1/runs/{run_id}/history")
    assert len(answer.body.splitlines()) == 1 + 4


async def test_unreadable_facts_are_exported_as_placeholders(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    await platform.bus.publish(subjects.run(run_id, "step.double.1.finished"), b"\xff")
    await platform.bus.publish(subjects.run(run_id, "nonsense"), b"{}")
    lines = [orjson.loads(line) for line in (await http("GET", f"/v1/runs/{run_id}/history")).body.splitlines()]
    assert [line.get("type") for line in lines] == [None, "penstock.run.requested.v1", "penstock.attempt.finished.v1"]
    assert lines[2]["fact"]["outcome"] == Outcome.LOST
    assert lines[2]["unreadable"]
    assert "unreadable" not in lines[1]


async def test_a_long_history_is_streamed_completely(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    for first in range(1, 2001, 500):
        await platform.log.append([attempt_started(run_id, "double", first + n) for n in range(500)])
    reader, writer = await http.open("GET", f"/v1/runs/{run_id}/history")
    await read_head(reader)
    parts: list[bytes] = []
    while part := await read_chunk(reader):
        parts.append(part)
    writer.close()
    lines = b"".join(parts).splitlines()
    assert [orjson.loads(line)["fact"]["attempt"] for line in lines[2:]] == list(range(1, 2001))
    assert len(parts) > 4, "all of it was in memory at once"


async def test_a_run_without_a_request_or_a_version_has_no_history(platform: Platform, http: Http) -> None:
    assert (await http("GET", "/v1/runs/unknown/history")).status == 404
    lost = await platform.request("forgotten", version=7)
    answer = await http("GET", f"/v1/runs/{lost}/history")
    assert answer.status == 404
    assert answer.json()["detail"].startswith("Pipeline 'forgotten' has no version 7")


async def large(platform: Platform) -> str:
    """A run with a history of 30 MB."""
    run_id = await platform.request()
    for first in range(1, 101, 20):
        outputs = {"r": Inline("x" * 300_000)}
        await platform.log.append([attempt_finished(run_id, "double", first + n, outputs=outputs) for n in range(20)])
    return run_id


async def test_a_client_that_never_reads_is_disconnected_visibly(tmp_path: Path) -> None:
    async with running(tmp_path, stream_timeout=0.3) as platform:
        reader, _ = await Http(platform).open("GET", f"/v1/runs/{await large(platform)}/history")
        async with asyncio.timeout(10):
            while not await platform.consumers():
                await asyncio.sleep(0.005)
            while await platform.consumers():
                await asyncio.sleep(0.01)
        await read_head(reader)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            while await read_chunk(reader):
                pass


async def test_a_disconnected_client_leaves_no_consumer(platform: Platform, http: Http) -> None:
    known = await platform.consumers()
    reader, writer = await http.open("GET", f"/v1/runs/{await large(platform)}/history")
    await read_head(reader)
    assert await platform.consumers() - known
    writer.close()
    async with asyncio.timeout(5):
        while await platform.consumers() - known:
            await asyncio.sleep(0.01)


async def test_a_partly_read_log_is_visibly_incomplete(tmp_path: Path) -> None:
    async with running(tmp_path, stream_timeout=0.5) as platform:
        run_id = await large(platform)
        reader, _ = await Http(platform).open("GET", f"/v1/runs/{run_id}/history")
        await read_head(reader)
        await read_chunk(reader)
        os.kill(platform.server.pid, signal.SIGSTOP)
        try:
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                async with asyncio.timeout(15):
                    while await read_chunk(reader):
                        pass
        finally:
            os.kill(platform.server.pid, signal.SIGCONT)
