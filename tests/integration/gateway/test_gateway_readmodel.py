"""The read model behind the gateway: rebuilds, shared by replicas, persistent over restarts."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from gateway_platform import TOKEN, Http, Platform, running

from penstock import Client
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_contracts import subjects
from penstock_core.facts import Outcome, RunFinished
from penstock_core.pipeline.values import ArtifactRef, Inline, ResultOf, ResultRef, Stored
from penstock_gateway.app import build
from penstock_gateway.runs import run_values
from penstock_gateway.settings import GatewaySettings

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def listed(http: Http, query: str) -> list[str]:
    answer = await http("GET", f"/v1/runs?{query}")
    assert answer.status == 200, answer.json()
    return [run["run_id"] for run in answer.json()["runs"]]


async def test_a_list_is_rebuilt_from_the_log(platform: Platform, http: Http) -> None:
    run_ids = [await platform.request("rebuilt", labels={"a": "b"}, requested_at=1000.0 + n) for n in range(5)]
    assert await listed(http, "pipeline=rebuilt&sort=created_at") == run_ids
    begun = await http("POST", "/v1/admin/rebuild")
    assert begun.status == 202
    assert begun.json()["upto"] >= 5
    assert await listed(http, "pipeline=rebuilt&label=a=b&sort=created_at") == run_ids


async def test_a_run_has_the_same_summary_alone_and_in_a_list(platform: Platform, http: Http) -> None:
    run_id = await platform.request("alike", labels={"a": "b"}, trigger={"type": "cron", "deployment": "nightly"})
    await platform.run_step(run_id, "double", {"result": Inline(4)})
    await platform.log.append([RunFinished(run_id=run_id, outcome=Outcome.SUCCEEDED, finished_at=time.time() + 60)])
    (row,) = (await http("GET", "/v1/runs?pipeline=alike")).json()["runs"]
    alone = (await http("GET", f"/v1/runs/{run_id}")).json()
    assert {name: alone[name] for name in row} == row
    assert row["duration"] > 30
    assert row["started_at"] >= row["created_at"]


async def test_a_list_with_inputs_and_outputs(platform: Platform, http: Http) -> None:
    run_ids = [await platform.request("valued", requested_at=1000.0 + n, models={"m": "churn:3"}) for n in range(3)]
    await platform.run_step(run_ids[0], "double", {"result": Inline(4)})
    await platform.finish(run_ids[0], outputs={"result": ResultOf(ResultRef(key="double", attempt=1, output="result"))})
    query = "pipeline=valued&sort=created_at"
    rows = (await http("GET", f"/v1/runs?{query}&values=true&limit=2")).json()["runs"]
    assert [(row["inputs"], row["input_models"], row["outputs"]) for row in rows] == [
        ({"n": {"value": 1}}, {"m": "churn:3"}, {"result": {"value": 4}}),
        ({"n": {"value": 1}}, {"m": "churn:3"}, {}),
    ]
    assert "inputs" not in (await http("GET", f"/v1/runs?{query}")).json()["runs"][0]
    client = Client(f"http://127.0.0.1:{http.port}", TOKEN)
    found = await asyncio.to_thread(client.runs.list, "valued", values=True, sort="created_at")
    assert [(run.run_id, run.inputs["n"]["value"]) for run in found] == [(run_id, 1) for run_id in run_ids]


async def test_a_page_with_large_values_has_fewer_runs_and_the_next_one_continues(
    platform: Platform, http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_values, "SIZE_LIMIT", 1000)
    run_ids = [await platform.request("bulky", requested_at=1000.0 + n) for n in range(4)]
    for run_id in run_ids:
        await platform.finish(run_id, outputs={"result": Inline("x" * 400)})
    query, pages = "/v1/runs?pipeline=bulky&sort=created_at&values=true", []
    cursor = ""
    while cursor is not None:
        page = (await http("GET", query + (f"&cursor={cursor}" if cursor else ""))).json()
        pages.append([row["run_id"] for row in page["runs"]])
        cursor = page["next"]
    assert pages == [run_ids[:2], run_ids[2:]]


async def test_the_lineage_of_an_artifact(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    made = ArtifactRef(sha256="5" * 64, size=7, media_type="text/csv", format="file", filename="a.csv")
    await platform.run_step(run_id, "double", {"result": Stored(made)})
    found = (await http("GET", f"/v1/artifacts/{'5' * 64}/lineage")).json()
    assert (found["filename"], found["down"]) == ("a.csv", [])
    (step,) = found["up"]
    assert (step["run_id"], step["key"], step["pipeline"], step["version"]) == (run_id, "double", "chain", 1)
    assert len(step["source"]) == 64
    assert (await http("GET", f"/v1/artifacts/{'6' * 64}/lineage")).status == 404
    assert (await http("GET", "/v1/artifacts/odd/lineage")).status == 422


async def test_purged_facts_do_not_block_the_projector(platform: Platform, http: Http) -> None:
    run_id = await platform.request("purged")
    await platform.bus.api(f"STREAM.PURGE.{subjects.RUNS}", {"filter": subjects.run_all(run_id)})
    page = (await http("GET", "/v1/runs?limit=1")).json()
    assert page["lag"] == 0


async def test_two_gateways_on_one_database(tmp_path: Path) -> None:
    async with running(tmp_path) as platform:
        settings = GatewaySettings(home=tmp_path, port=0, token=TOKEN, stop_timeout=4.0)
        other = build(platform.context, settings)
        await other.start()
        try:
            one, two = Http(platform), Http(platform)
            two.port = other.port
            for n in range(6):
                run_id = await platform.request("shared", requested_at=1000.0 + n)
                assert (await listed(one, "pipeline=shared"))[0] == run_id
                assert (await listed(two, "pipeline=shared"))[0] == run_id
            assert len(await listed(two, "pipeline=shared")) == 6
        finally:
            await other.stop()


async def test_projected_rows_survive_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path) as platform:
        run_id = await platform.request("kept")
        assert await listed(Http(platform), "pipeline=kept") == [run_id]
    assert (tmp_path / "read-model.db").exists()
    async with running(tmp_path) as platform:
        assert isinstance(platform.log, NatsRunLog)
        assert await listed(Http(platform), "pipeline=kept") == [run_id]
