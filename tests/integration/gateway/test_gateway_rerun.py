"""Reruns over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from gateway_platform import Http, Platform, chain

from penstock_core.facts import RunRequested
from penstock_core.pipeline import ir
from penstock_core.pipeline.values import ArtifactRef, Inline, Stored

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def fact_of(platform: Platform, run_id: str) -> RunRequested:
    facts = [record.fact for record in await platform.log.read(run_id)]
    assert len(facts) == 1 and isinstance(facts[0], RunRequested)
    return facts[0]


async def started(http: Http, pipeline: str = "chain", **more: Any) -> str:
    body = {"pipeline": pipeline, "inputs": {"n": 3}, "labels": {"team": "growth"}, "priority": 7} | more
    answer = await http("POST", "/v1/runs", body)
    assert answer.status == 202, answer.json()
    return answer.json()["run_id"]


async def test_a_rerun_is_a_new_run_with_a_parent(platform: Platform, http: Http) -> None:
    parent = await started(http)
    answer = await http("POST", f"/v1/runs/{parent}/rerun")
    assert answer.status == 202
    accepted = answer.json()
    assert accepted == {"run_id": accepted["run_id"], "pipeline": "chain", "version": 1, "created": True}
    assert accepted["run_id"] != parent
    assert answer.headers["location"] == f"/v1/runs/{accepted['run_id']}"
    first, again = await fact_of(platform, parent), await fact_of(platform, accepted["run_id"])
    assert again.inputs == first.inputs == {"n": Inline(3), "label": Inline("none")}
    assert (again.labels, again.priority) == ({"team": "growth"}, 7)
    assert (again.trigger["type"], again.trigger["parent"]) == ("rerun", parent)
    assert again.requested_at >= first.requested_at
    view = (await http("GET", f"/v1/runs/{accepted['run_id']}")).json()
    assert view["trigger"]["parent"] == parent
    # A rerun can be rerun.
    third = (await http("POST", f"/v1/runs/{accepted['run_id']}/rerun", {"version": "same"})).json()["run_id"]
    assert (await fact_of(platform, third)).trigger["parent"] == accepted["run_id"]


async def test_inputs_can_be_changed_and_are_checked(platform: Platform, http: Http) -> None:
    parent = await started(http)
    path = f"/v1/runs/{parent}/rerun"
    changed = (await http("POST", path, {"inputs": {"label": "x"}})).json()["run_id"]
    assert (await fact_of(platform, changed)).inputs == {"n": Inline(3), "label": Inline("x")}
    answer = await http("POST", path, {"inputs": {"n": "three", "labl": "x"}})
    assert answer.status == 422 and answer.fields == {"inputs.n", "inputs.labl"}
    assert "did you mean 'label'" in answer.json()["detail"]


async def test_a_version_must_be_chosen_when_a_newer_one_exists(platform: Platform, http: Http) -> None:
    await platform.add_version(chain("grown"))
    parent = await started(http, "grown")
    await platform.add_version(chain("grown", steps=3), 2)
    path = f"/v1/runs/{parent}/rerun"
    answer = await http("POST", path, {})
    assert answer.status == 422 and answer.fields == {"version"}
    start = f"Run {parent} used version 1 of pipeline 'grown', the latest is 2: "
    assert answer.json()["detail"].startswith(start)
    assert "'same'" in answer.json()["detail"] and "'latest'" in answer.json()["detail"]
    assert (await http("POST", path, {"version": "same"})).json()["version"] == 1
    assert (await http("POST", path, {"version": "latest"})).json()["version"] == 2
    assert (await http("POST", path, {"version": "newest"})).fields == {"version"}


async def test_an_experiment_run_is_rerun_with_its_version(platform: Platform, http: Http) -> None:
    await platform.add_version(chain("tried-again"))
    await platform.add_version(chain("tried-again", steps=3), 2, publish=False)
    path = f"/v1/runs/{await started(http, 'tried-again', version=2)}/rerun"
    assert (await http("POST", path, {})).json()["version"] == 2
    await platform.add_version(chain("tried-again", steps=4), 3, publish=False)
    assert (await http("POST", path, {"version": "latest"})).json()["version"] == 1
    assert (await http("POST", path, {"version": 3})).json()["version"] == 3
    assert (await http("POST", path, {"version": 9})).status == 404


async def test_latest_needs_a_published_version(platform: Platform, http: Http) -> None:
    await platform.add_version(chain("only-tried"), publish=False)
    path = f"/v1/runs/{await started(http, 'only-tried', version=1)}/rerun"
    assert (await http("POST", path, {})).json()["version"] == 1
    answer = await http("POST", path, {"version": "latest"})
    assert answer.status == 404
    assert answer.json()["detail"].startswith("Pipeline 'only-tried' has no published version")


async def test_the_inputs_of_the_parent_must_fit_the_latest_version(platform: Platform, http: Http) -> None:
    await platform.add_version(chain("moved"))
    parent = await started(http, "moved")
    params = (
        ir.Port(name="n", type="str", schema={"type": "string"}),
        ir.Port(name="depth", type="int", schema={"type": "integer"}),
    )
    await platform.add_version(ir.Pipeline(name="moved", params=params), 2)
    path = f"/v1/runs/{parent}/rerun"
    answer = await http("POST", path, {"version": "latest"})
    assert answer.status == 422 and answer.fields == {"inputs.n", "inputs.label", "inputs.depth"}
    messages = {error["field"]: error["message"] for error in answer.json()["errors"]}
    assert messages["inputs.n"] == "expected str, got 3" and "missing" in messages["inputs.depth"]
    params = (*params, ir.Port(name="label", required=False))
    await platform.add_version(ir.Pipeline(name="moved", params=params), 3)
    answer = await http("POST", path, {"version": "latest", "inputs": {"n": "x", "depth": 2}})
    fact = await fact_of(platform, answer.json()["run_id"])
    assert (fact.version, fact.inputs) == (3, {"n": Inline("x"), "depth": Inline(2), "label": Inline("none")})


async def test_a_default_that_violates_its_type_is_reused(platform: Platform, http: Http) -> None:
    port = ir.Port(name="n", type="int", required=False, default=None, schema={"type": "integer"})
    await platform.add_version(ir.Pipeline(name="odd", params=(port,)))
    parent = await started(http, "odd", inputs={})
    assert (await http("POST", f"/v1/runs/{parent}/rerun")).status == 202


async def test_artifacts_of_the_parent_must_still_be_there(platform: Platform, http: Http) -> None:
    sha256 = await platform.store.put_bytes(b"a,b\n")
    reference = {"sha256": sha256, "size": 4, "media_type": "text/csv", "format": "file", "filename": "a.csv"}
    parent = await started(http, inputs={"n": {"artifact": reference}})
    path = f"/v1/runs/{parent}/rerun"
    again = (await http("POST", path)).json()["run_id"]
    assert (await fact_of(platform, again)).inputs["n"] == Stored(ArtifactRef(**reference))
    await platform.store.delete(sha256)
    answer = await http("POST", path)
    assert answer.status == 422 and answer.fields == {"inputs.n"}


async def test_an_idempotency_key_returns_the_existing_rerun(platform: Platform, http: Http) -> None:
    await platform.add_version(chain("keyed"))
    parent, other = await started(http, "keyed"), await started(http, "keyed")
    path, key = f"/v1/runs/{parent}/rerun", {"idempotency-key": "again"}
    answers = await asyncio.gather(*(http("POST", path, {}, headers=key) for _ in range(8)))
    assert sorted(answer.status for answer in answers) == [200] * 7 + [202]
    run_id = answers[0].json()["run_id"]
    assert {answer.json()["run_id"] for answer in answers} == {run_id}
    # It applies even after a newer version, for which a new request would need a choice.
    await platform.add_version(chain("keyed", steps=3), 2)
    assert (await http("POST", path, {}, headers=key)).json()["run_id"] == run_id
    assert (await http("POST", path, {"version": "same"}, headers=key)).status == 409
    assert (await http("POST", f"/v1/runs/{other}/rerun", {}, headers=key)).status == 409
    assert (await http("POST", "/v1/runs", {"pipeline": "keyed", "inputs": {"n": 3}}, headers=key)).status == 409
    bad = await http("POST", path, {}, headers={"idempotency-key": "x" * 256})
    assert bad.fields == {"header.idempotency-key"}


async def test_rerunning_an_unknown_run_is_not_found(http: Http) -> None:
    assert (await http("POST", "/v1/runs/nothing/rerun", {})).status == 404
