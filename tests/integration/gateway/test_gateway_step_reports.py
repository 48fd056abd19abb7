"""Cache options of runs, cache reports, and early artifacts of steps, over HTTP."""

from __future__ import annotations

import dataclasses
import time

import pytest
from gateway_platform import Http, Platform, attempt_finished, attempt_requested, attempt_started

from penstock_contracts import subjects
from penstock_core.facts import (
    ArtifactCommitted,
    CacheMode,
    CacheReport,
    ErrorInfo,
    Outcome,
    RunRequested,
    StepExpanded,
)
from penstock_core.pipeline import ir
from penstock_core.pipeline.values import Inline, Param

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


async def test_the_progress_of_a_running_step_is_in_the_view_until_it_succeeds(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    await platform.log.append([attempt_requested(run_id, "double"), attempt_started(run_id, "double")])
    path = f"/v1/runs/{run_id}"
    first = await http("GET", path)
    assert first.json()["steps"]["double"]["progress"] is None
    for done in range(1, 4):
        await platform.reports_progress(run_id, "double", done, 10, f"epoch {done}")
    changed = await http("GET", path, headers={"if-none-match": first.headers["etag"]})
    assert changed.status == 200
    progress = {"done": 3, "total": 10, "text": "epoch 3", "at": 1.0}
    assert changed.json()["steps"]["double"]["progress"] == progress
    assert changed.json()["steps"]["double-2"]["progress"] is None
    assert (await http("GET", path, headers={"if-none-match": changed.headers["etag"]})).status == 304
    # Only the latest is kept, and followers get it with the output.
    await platform.wrote(run_id, "double", "hello")
    logs = (await http("GET", f"{path}/logs?follow=false&step=double")).body.decode()
    assert logs.count("event: progress") == 1 and '"done":3' in logs and "hello" in logs
    await platform.log.append([attempt_finished(run_id, "double", outputs={"result": Inline(2)})])
    assert (await http("GET", path)).json()["steps"]["double"]["progress"] is None


async def test_progress_of_an_earlier_attempt_and_unreadable_progress_are_not_shown(
    platform: Platform, http: Http
) -> None:
    run_id = await platform.request()
    await platform.log.append([attempt_requested(run_id, "double"), attempt_started(run_id, "double")])
    await platform.reports_progress(run_id, "double", 4, 10)
    await platform.bus.publish(f"{subjects.logs(run_id, 'double', 2)}.progress", b"{}")
    lost = attempt_finished(run_id, "double", outcome=Outcome.LOST)
    await platform.log.append([lost])
    view = (await http("GET", f"/v1/runs/{run_id}")).json()
    assert (view["steps"]["double"]["state"], view["steps"]["double"]["progress"]["done"]) == ("retrying", 4)
    await platform.log.append([attempt_requested(run_id, "double", 2), attempt_started(run_id, "double", 2)])
    assert (await http("GET", f"/v1/runs/{run_id}")).json()["steps"]["double"]["progress"] is None


async def test_a_mapped_step_shows_how_many_items_have_finished_and_which_failed_last(
    platform: Platform, http: Http
) -> None:
    spec = ir.StepSpec(name="double", entrypoint="steps:double", inputs=(ir.Port(name="n", type="int"),))
    node = ir.Node(key="each", step="double", inputs={"n": Inline([1, 2, 3])}, mapped=ir.MapSpec(over=("n",)))
    await platform.add_version(ir.Pipeline(name="fan", steps={"double": spec}, nodes=(node,)))
    run_id = await platform.request("fan")
    await platform.log.append([StepExpanded(run_id=run_id, key="each", count=3)])
    await platform.log.append([attempt_requested(run_id, f"each[{n}]") for n in range(3)])
    await platform.log.append([attempt_finished(run_id, "each[0]")])
    step = (await http("GET", f"/v1/runs/{run_id}")).json()["steps"]["each"]
    assert step["items"] == {"count": 3, "finished": 1, "succeeded": 1, "queued": 2} and step["last_failed"] is None
    error = ErrorInfo(type="ValueError", message="no", traceback="...")
    await platform.log.append([attempt_finished(run_id, "each[2]", outcome=Outcome.FAILED, error=error)])
    step = (await http("GET", f"/v1/runs/{run_id}")).json()["steps"]["each"]
    assert step["items"] == {"count": 3, "finished": 2, "succeeded": 1, "failed": 1, "queued": 1}
    assert step["last_failed"] == {"key": "each[2]", "type": "ValueError", "message": "no"}


async def test_a_step_has_its_inputs_and_where_the_time_of_its_attempts_went(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    path = f"/v1/runs/{run_id}/step?step="
    waiting = (await http("GET", f"{path}double-2")).json()
    assert (waiting["state"], waiting["inputs"], waiting["history"]) == ("waiting", {}, [])
    request, now = attempt_requested(run_id, "double"), time.time()
    await platform.log.append([request])
    await platform.log.append([attempt_started(run_id, "double")])
    running = (await http("GET", f"{path}double")).json()
    assert running["inputs"] == {"n": {"value": 1}}
    (attempt,) = running["history"]
    assert (attempt["number"], attempt["state"], attempt["executor"]) == (1, "running", "executor-1")
    assert abs(attempt["requested_at"] - now) < 60 and attempt["run_seconds"] is None
    error = ErrorInfo(type="Signal", message="no")
    times = {"started_at": now + 10, "finished_at": now + 14, "load_seconds": 3.0, "save_seconds": 0.5}
    end = attempt_finished(run_id, "double", outcome=Outcome.LOST, error=error, **times)
    again = dataclasses.replace(attempt_requested(run_id, "double", 2), not_before=now + 20)
    await platform.log.append([end, again])
    times = {"started_at": now + 21, "finished_at": now + 22, "load_seconds": 0.25}
    await platform.log.append([attempt_finished(run_id, "double", 2, outputs={"result": Inline(2)}, **times)])
    step = (await http("GET", f"{path}double")).json()
    first, second = step["history"]
    assert (step["run_id"], step["key"], step["state"], step["attempts"]) == (run_id, "double", "succeeded", 2)
    assert (first["state"], first["error"]["type"], second["error"]) == ("lost", "Signal", None)
    assert (first["load_seconds"], first["save_seconds"]) == (3.0, 0.5)
    assert first["run_seconds"] == pytest.approx(4) and 0 <= first["queue_seconds"] <= 7
    assert second["queue_seconds"] == pytest.approx(0.75), "from when it was due"
    assert (await http("GET", f"{path}double-2")).json()["inputs"] == {"n": {"value": 2}}, "its source has a result"
    assert (await http("GET", f"{path}triple")).status == 404


async def test_items_have_the_inputs_that_differ_and_a_step_view_has_all(platform: Platform, http: Http) -> None:
    inputs = (ir.Port(name="n"), ir.Port(name="rate"), ir.Port(name="mode"))
    spec = ir.StepSpec(name="double", entrypoint="steps:double", inputs=inputs)
    over = {"n": Inline([1, {"a": 2}]), "mode": Inline(["x", "y"]), "rate": Param("n")}
    node = ir.Node(key="each", step="double", inputs=over, mapped=ir.MapSpec(over=("n", "mode"), mode="grid"))
    await platform.add_version(ir.Pipeline(name="grid", steps={"double": spec}, nodes=(node,)))
    run_id = await platform.request("grid")
    await platform.log.append([StepExpanded(run_id=run_id, key="each", count=4)])
    await platform.log.append([attempt_requested(run_id, f"each[{n}]") for n in range(3)])
    items = (await http("GET", f"/v1/runs/{run_id}/items?step=each")).json()["items"]
    given = [({"value": 1}, "x"), ({"value": 1}, "y"), ({"value": {"a": 2}}, "x"), ({"value": {"a": 2}}, "y")]
    wanted = [{"n": n, "mode": {"value": mode}} for n, mode in given]
    assert [item["inputs"] for item in items.values()] == wanted[:3]
    for index in (2, 3):  # the last one has not started
        item = (await http("GET", f"/v1/runs/{run_id}/step?step=each[{index}]")).json()
        assert item["inputs"] == {**wanted[index], "rate": {"value": 1}}
        assert (item["item_of"], len(item["history"])) == ("each", 3 - index)
    mapped = (await http("GET", f"/v1/runs/{run_id}/step?step=each")).json()
    assert mapped["inputs"]["n"] == {"value": [1, {"a": 2}]} and mapped["inputs"]["rate"] == {"value": 1}
    assert "inputs" not in (await http("GET", f"/v1/runs/{run_id}")).json()["steps"]["each[0]"]
    assert (await http("GET", f"/v1/runs/{run_id}/step?step=each[4]")).status == 404
