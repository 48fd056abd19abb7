"""Cache options of runs, cache reports, and early artifacts of steps, over HTTP."""

from __future__ import annotations

import dataclasses
import time

import pytest
from gateway_platform import Http, Platform, attempt_finished, attempt_requested, attempt_started

from penstock_core.facts import ArtifactCommitted, CacheMode, CacheReport, Outcome, RunRequested
from penstock_core.pipeline.values import Inline

pytestmark = pytest.mark.asyncio(loop_scope="module")


def committed(run_id: str, name: str, value: object, attempt: int = 1, display_name: str = "") -> ArtifactCommitted:
    return ArtifactCommitted(
        run_id=run_id,
        key="double",
        attempt=attempt,
        name=name,
        value=Inline(value),
        at=time.time(),
        display_name=display_name,
    )


async def test_cache_options_are_set_at_submission(platform: Platform, http: Http) -> None:
    body = {"pipeline": "chain", "inputs": {"n": 3}}
    answer = await http("POST", "/v1/runs", {**body, "refresh": ["double-2", "double", "double"]})
    assert answer.status == 202
    run_id = answer.json()["run_id"]
    (record,) = await platform.log.read(run_id)
    assert isinstance(record.fact, RunRequested)
    assert (record.fact.cache, record.fact.refresh) == (CacheMode.USE, ("double-2", "double"))
    # A rerun uses the defaults, or the requested options.
    path = f"/v1/runs/{run_id}/rerun"
    for more, wanted in (({}, (CacheMode.USE, ())), ({"cache": "off"}, (CacheMode.OFF, ()))):
        again = (await http("POST", path, more)).json()["run_id"]
        (record,) = await platform.log.read(again)
        assert isinstance(record.fact, RunRequested)
        assert (record.fact.cache, record.fact.refresh) == wanted


async def test_contradictory_options_are_rejected(http: Http) -> None:
    body = {"pipeline": "chain", "inputs": {"n": 3}}
    answer = await http("POST", "/v1/runs", {**body, "refresh": ["dobule"]})
    assert answer.status == 422 and answer.fields == {"refresh"}
    assert answer.json()["title"] == "Unprocessable"
    start = "Invalid run request for pipeline 'chain': refresh: there is no step 'dobule' (steps: double, double-2"
    assert answer.json()["detail"].startswith(start)
    answer = await http("POST", "/v1/runs", {**body, "refresh": ["double"], "cache": "off"})
    assert answer.status == 422 and answer.fields == {"refresh"}
    assert (await http("POST", "/v1/runs", {**body, "cache": "maybe"})).fields == {"cache"}


async def test_cache_reports_are_in_the_view_and_explained(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    report = CacheReport(
        key="k" * 64,
        parts={"code": "1", "input n": "2"},
        differs=("input n",),
        from_run="earlier",
        from_step="double",
        stored_at=time.time() - 7200,
    )
    end = dataclasses.replace(attempt_finished(run_id, "double", outcome=Outcome.SUCCEEDED), cache=report)
    await platform.log.append([attempt_requested(run_id, "double")])
    await platform.log.append([end])
    view = (await http("GET", f"/v1/runs/{run_id}")).json()
    assert view["steps"]["double"]["cache"] == {**dataclasses.asdict(report), "differs": ["input n"]}
    assert view["steps"]["double-2"]["cache"] is None
    steps = {step["key"]: step for step in (await http("GET", f"/v1/runs/{run_id}/explain")).json()["steps"]}
    sentence = steps["double"]["sentence"]
    assert sentence.endswith(
        "; cache: ran, because input 'n' differs from the nearest cached result, that of step 'double' of run "
        "earlier, stored 2 h ago"
    )


async def test_artifacts_of_a_running_step_are_shown(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    await platform.log.append([attempt_requested(run_id, "double")])
    await platform.log.append([attempt_started(run_id, "double")])
    await platform.log.append(
        [committed(run_id, "curve-1", 1, display_name="loss curve"), committed(run_id, "plain", 2)]
    )
    await platform.log.append([committed(run_id, "checkpoint", {"epoch": 1})])
    await platform.log.append([committed(run_id, "checkpoint", {"epoch": 2})])
    step = (await http("GET", f"/v1/runs/{run_id}")).json()["steps"]["double"]
    assert step["state"] == "running"
    assert step["artifacts"] == {"loss curve": {"value": 1}, "plain": {"value": 2}}
    assert step["checkpoint"]["attempt"] == 1 and step["checkpoint"]["value"] == {"value": {"epoch": 2}}
    # A new attempt starts with no artifacts but the checkpoint.
    await platform.log.append([attempt_finished(run_id, "double", outcome=Outcome.LOST)])
    await platform.log.append([attempt_requested(run_id, "double", attempt=2)])
    step = (await http("GET", f"/v1/runs/{run_id}")).json()["steps"]["double"]
    assert step["artifacts"] == {} and step["checkpoint"]["value"] == {"value": {"epoch": 2}}
    kept = [record.fact for record in await platform.log.read(run_id) if isinstance(record.fact, ArtifactCommitted)]
    assert [(fact.name, fact.value) for fact in kept] == [
        ("curve-1", Inline(1)),
        ("plain", Inline(2)),
        ("checkpoint", Inline({"epoch": 2})),
    ]
