"""Runs over HTTP: submit, read, list, cancel; their results."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from gateway_platform import Http, Platform, attempt_finished, attempt_requested, attempt_started, chain, running

from penstock_adapters.nats.bootstrap import bootstrap
from penstock_adapters.nats.buckets.kv import Bucket
from penstock_adapters.nats.known_pools import KnownPools
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_contracts import subjects
from penstock_contracts.commands import LeaseHolder, Offer
from penstock_core.facts import CancelRequested, ErrorInfo, Outcome, RunRequested, StepExpanded, StepSkipped
from penstock_core.pipeline import ir
from penstock_core.pipeline.values import ArtifactRef, Fields, Inline, Items, Output, ResultOf, ResultRef, Stored
from penstock_gateway.runs import large_runs, run_states

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def requested(platform: Platform, run_id: str) -> RunRequested:
    facts = [record.fact for record in await platform.log.read(run_id)]
    assert len(facts) == 1
    assert isinstance(facts[0], RunRequested)
    return facts[0]


# ------------------------------------------------------------------------------------------------------------- asking


async def test_a_run_is_in_the_log_when_it_is_accepted(platform: Platform, http: Http) -> None:
    body = {"pipeline": "chain", "inputs": {"n": 3}, "labels": {"team": "growth"}, "priority": 7}
    answer = await http("POST", "/v1/runs", body)
    assert answer.status == 202
    accepted = answer.json()
    assert accepted == {"run_id": accepted["run_id"], "pipeline": "chain", "version": 1, "created": True}
    assert answer.headers["location"] == f"/v1/runs/{accepted['run_id']}"
    fact = await requested(platform, accepted["run_id"])
    assert fact.inputs == {"n": Inline(3), "label": Inline("none")}
    assert (fact.project, fact.version, fact.labels, fact.priority) == ("default", 1, {"team": "growth"}, 7)
    assert fact.trigger["type"] == "manual"
    assert fact.requested_at > 1_700_000_000


async def test_a_run_in_an_unknown_pool_is_refused_until_there_are_executors(platform: Platform, http: Http) -> None:
    step = ir.StepSpec(name="fit", entrypoint="steps:fit", pool="late", file="flows.py", line=3)
    await platform.add_version(ir.Pipeline(name="pooled", nodes=(ir.Node(key="fit", step="fit"),), steps={"fit": step}))
    definition = {"definition": {"pipeline": "pooled"}}
    for answer in (
        await http("POST", "/v1/runs", {"pipeline": "pooled"}),
        await http("PUT", "/v1/deployments/pooled", definition),
    ):
        assert answer.status == 422
        (problem,) = answer.json()["errors"]
        assert problem["field"] == "steps.fit.pool"
        assert (
            problem["message"]
            == "no executor serves pool 'late' (flows.py:3); the pools are: default (1 executor, 4 slots)"
        )
    await bootstrap(platform.bus, pools=["late"])
    assert (await http("POST", "/v1/runs", {"pipeline": "pooled"})).status == 202
    assert (await http("PUT", "/v1/deployments/pooled", definition)).status == 200


async def test_ids_sort_by_time(http: Http) -> None:
    ids = [(await http("POST", "/v1/runs", {"pipeline": "chain", "inputs": {"n": 1}})).json()["run_id"]]
    await asyncio.sleep(0.002)
    ids.append((await http("POST", "/v1/runs", {"pipeline": "chain", "inputs": {"n": 1}})).json()["run_id"])
    assert ids == sorted(set(ids))


async def test_an_idempotency_key_returns_the_existing_run(platform: Platform, http: Http) -> None:
    body = {"pipeline": "chain", "inputs": {"n": 3}}
    key = {"idempotency-key": "order-17"}
    first = await http("POST", "/v1/runs", body, headers=key)
    again = await http("POST", "/v1/runs", body, headers=key)
    assert (first.status, again.status) == (202, 200)
    assert again.json() == first.json() | {"created": False}
    other = await http("POST", "/v1/runs", body | {"inputs": {"n": 4}}, headers=key)
    assert other.status == 409
    assert first.json()["run_id"] in other.json()["detail"]
    assert (await requested(platform, first.json()["run_id"])).inputs["n"] == Inline(3)
    # Without a key every request creates a run.
    assert (await http("POST", "/v1/runs", body)).json()["run_id"] != first.json()["run_id"]


async def test_an_idempotency_key_still_applies_after_a_newer_version(platform: Platform, http: Http) -> None:
    await platform.add_version(chain("growing"))
    body, key = {"pipeline": "growing", "inputs": {"n": 3}}, {"idempotency-key": "k"}
    first = await http("POST", "/v1/runs", body, headers=key)
    newer = ir.Pipeline(name="growing", params=(ir.Port(name="other"),))
    await platform.add_version(newer, 2)
    again = await http("POST", "/v1/runs", body, headers=key)
    assert (again.status, again.json()["version"]) == (200, 1)
    assert again.json()["run_id"] == first.json()["run_id"]
    # The latest version is the default, an older one can be named.
    assert (await http("POST", "/v1/runs", body)).status == 422
    assert (await http("POST", "/v1/runs", body | {"version": 1})).json()["version"] == 1


async def test_concurrent_requests_with_one_key_create_one_run(platform: Platform, http: Http) -> None:
    body = {"pipeline": "chain", "inputs": {"n": 3}}
    ask = [http("POST", "/v1/runs", body, headers={"idempotency-key": "race"}) for _ in range(20)]
    answers = await asyncio.gather(*ask)
    assert sorted(answer.status for answer in answers) == [200] * 19 + [202]
    assert len({answer.json()["run_id"] for answer in answers}) == 1
    await requested(platform, answers[0].json()["run_id"])


async def test_many_requests_at_the_same_time_are_answered_one_by_one(platform: Platform, http: Http) -> None:
    body = {"pipeline": "chain", "inputs": {"n": 1}}
    known = await http("POST", "/v1/runs", body, headers={"idempotency-key": "0"})
    keys = [None] * 20 + [str(number) for number in range(20)] * 2
    answers = await asyncio.gather(
        *(
            http(
                "POST", "/v1/runs", {"pipeline": "chain", "inputs": {"n": 1}}, headers=key and {"idempotency-key": key}
            )
            for key in keys
        )
    )
    assert sorted(answer.status for answer in answers) == [200] * 21 + [202] * 39
    assert len({answer.json()["run_id"] for answer in answers}) == 40
    assert {answers[20].json()["run_id"], answers[40].json()["run_id"]} == {known.json()["run_id"]}
    wrong = [{"pipeline": "chain", "inputs": {"n": n if n % 3 else "x"}} for n in range(60)]
    answers = await asyncio.gather(*(http("POST", "/v1/runs", body) for body in wrong))
    assert [answer.status for answer in answers] == [202 if n % 3 else 422 for n in range(60)]
    for answer in answers[1:3]:
        assert (await requested(platform, answer.json()["run_id"])).pipeline == "chain"


@pytest.mark.parametrize("key", ["x" * 256, "a\tb"])
async def test_an_invalid_idempotency_key_is_rejected(http: Http, key: str) -> None:
    answer = await http("POST", "/v1/runs", {"pipeline": "chain"}, headers={"idempotency-key": key})
    assert answer.status == 422
    assert answer.fields == {"header.idempotency-key"}


async def test_every_wrong_input_is_named(http: Http) -> None:
    inputs = {"n": "three", "labl": "x", "label": "y" * 70_000}
    answer = await http("POST", "/v1/runs", {"pipeline": "chain", "inputs": inputs})
    assert answer.status == 422
    problem = answer.json()
    assert answer.fields == {"inputs.n", "inputs.labl", "inputs.label"}
    messages = {error["field"]: error["message"] for error in problem["errors"]}
    assert messages["inputs.n"] == 'expected int, got "three"'
    assert "did you mean 'label'" in messages["inputs.labl"]
    assert "pass a file or an artifact" in messages["inputs.label"]
    missing = await http("POST", "/v1/runs", {"pipeline": "chain"})
    assert missing.fields == {"inputs.n"}
    assert "missing" in missing.json()["detail"]


async def test_an_artifact_as_input(platform: Platform, http: Http) -> None:
    sha256 = await platform.store.put_bytes(b"a,b\n1,2\n")
    reference = {"sha256": sha256, "size": 8, "media_type": "text/csv", "format": "file", "filename": "a.csv"}
    body: dict[str, Any] = {"pipeline": "chain", "inputs": {"n": {"artifact": reference}}}
    accepted = await http("POST", "/v1/runs", body)
    assert accepted.status == 202
    fact = await requested(platform, accepted.json()["run_id"])
    assert fact.inputs["n"] == Stored(ArtifactRef(**reference))
    for change, words in (({"sha256": "0" * 64}, "not in the store"), ({"size": 9}, "of 8 bytes, not 9")):
        body["inputs"]["n"]["artifact"] = reference | change
        answer = await http("POST", "/v1/runs", body)
        assert answer.status == 422
        assert answer.fields == {"inputs.n"}
        assert words in answer.json()["detail"]
    body["inputs"]["n"]["artifact"] = {"sha256": "../../etc/passwd", "size": 1}
    assert (await http("POST", "/v1/runs", body)).status == 422


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"pipeline": "nothing"}, 404),
        ({"pipeline": "chain", "version": 99, "inputs": {"n": 1}}, 404),
        ({"pipeline": "chain", "version": -1, "inputs": {"n": 1}}, 404),
        ({"pipeline": "chain", "version": 2**62, "inputs": {"n": 1}}, 404),
        ({"pipeline": "a.*.>"}, 422),
        ({"pipeline": ""}, 422),
        ({"pipeline": "chain", "inputs": {"n": 1}, "labels": {"x": "y" * 1001}}, 422),
        ({"pipeline": "chain", "inputs": {"n": 1}, "labels": {str(n): "" for n in range(65)}}, 422),
        ({"pipeline": "chain", "inputs": {"n": 1}, "priority": 1001}, 422),
        ({"pipeline": "chain", "inputs": []}, 422),
        ({"inputs": {}}, 422),
    ],
)
async def test_invalid_requests_are_rejected(http: Http, body: dict[str, Any], status: int) -> None:
    answer = await http("POST", "/v1/runs", body)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
    assert answer.json()["title"]


# ------------------------------------------------------------------------------------------------------------ reading


async def view(http: Http, run_id: str) -> dict[str, Any]:
    answer = await http("GET", f"/v1/runs/{run_id}")
    assert answer.status == 200
    return answer.json()


async def test_the_view_follows_a_running_run(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    seen = await view(http, run_id)
    assert (seen["state"], seen["created_at"], seen["finished_at"]) == ("queued", 1_700_000_000.0, None)
    assert {key: step["state"] for key, step in seen["steps"].items()} == {"double": "waiting", "double-2": "waiting"}
    assert seen["steps"]["double-2"]["depends_on"] == ["double"]
    await platform.log.append([attempt_requested(run_id, "double")])
    seen = await view(http, run_id)
    assert (seen["state"], seen["steps"]["double"]["state"]) == ("running", "queued")
    await platform.log.append([attempt_started(run_id, "double")])
    step = (await view(http, run_id))["steps"]["double"]
    assert (step["state"], step["started_at"], step["executor"]) == ("running", 1_700_000_001.5, "executor-1")
    done = attempt_finished(run_id, "double", outputs={"result": Inline(2)}, metrics={"loss": 0.5}, params={"seed": 3})
    await platform.log.append([done])
    await platform.run_step(run_id, "double-2", {"result": Inline(4)})
    await platform.finish(run_id, outputs={"result": Inline(4)})
    seen = await view(http, run_id)
    assert (seen["state"], seen["outputs"], seen["error"]) == ("succeeded", {"result": {"value": 4}}, None)
    assert seen["finished_at"] > 1_700_000_000
    step = seen["steps"]["double"]
    assert (step["state"], step["attempts"], step["finished_at"]) == ("succeeded", 1, 1_700_000_002.0)
    assert (step["metrics"], step["params"], step["outputs"]) == ({"loss": 0.5}, {"seed": 3}, {"result": {"value": 2}})


async def test_a_failed_run_shows_the_users_error(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    error = ErrorInfo(type="ValueError", message="no rows", traceback="Traceback ...\nValueError: no rows\n")
    await platform.log.append([attempt_requested(run_id, "double")])
    await platform.log.append([attempt_finished(run_id, "double", outcome=Outcome.FAILED, error=error)])
    await platform.log.append(
        [StepSkipped(run_id=run_id, key="double-2", reason="step 'double' failed", cause="double")]
    )
    await platform.finish(run_id, Outcome.FAILED, error="step 'double' failed: ValueError: no rows")
    seen = await view(http, run_id)
    assert (seen["state"], seen["error"]) == ("failed", "step 'double' failed: ValueError: no rows")
    assert seen["steps"]["double"]["error"] == {
        "type": "ValueError",
        "message": "no rows",
        "traceback": "Traceback ...\nValueError: no rows\n",
    }
    assert seen["steps"]["double-2"]["state"] == "skipped"
    assert seen["steps"]["double-2"]["reason"] == "step 'double' failed"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The start sequence of each read of the log, and the number of facts."""
    found: list[tuple[int, int]] = []
    read = NatsRunLog.read

    async def counted(self: NatsRunLog, run_id: str, after: int = 0) -> Any:
        facts = await read(self, run_id, after)
        found.append((after, len(facts)))
        return facts

    monkeypatch.setattr(NatsRunLog, "read", counted)
    return found


async def test_polling_reads_only_new_facts(platform: Platform, http: Http, reads: list[tuple[int, int]]) -> None:
    run_id = await platform.request()
    first = (await http("GET", f"/v1/runs/{run_id}")).headers["etag"]
    unchanged = await http("GET", f"/v1/runs/{run_id}", headers={"if-none-match": first})
    assert (unchanged.status, unchanged.body) == (304, b"")
    await platform.log.append([attempt_requested(run_id, "double")])
    changed = await http("GET", f"/v1/runs/{run_id}", headers={"if-none-match": first})
    assert (changed.status, changed.json()["last_seq"]) == (200, int(changed.headers["etag"].strip('"')))
    assert [count for _, count in reads] == [1, 0, 1]
    assert reads[1][0] == reads[2][0] > 0


async def test_a_run_with_many_facts_is_folded_while_it_runs(tmp_path: Path, reads: list[tuple[int, int]]) -> None:
    node = ir.Node(key="each", step="double", inputs={"n": Inline(list(range(400)))}, mapped=ir.MapSpec(over=("n",)))
    async with running(tmp_path) as platform:
        await platform.add_version(ir.Pipeline(name="many", steps=chain().steps, nodes=(node,)))
        run_id = await platform.request("many")
        await platform.log.append([StepExpanded(run_id=run_id, key="each", count=400)])
        for index in range(400):
            key = f"each[{index}]"
            await platform.log.append([attempt_requested(run_id, key), attempt_finished(run_id, key)])
        async with asyncio.timeout(60):
            while sum(count for _, count in reads) < large_runs.EVERY * 3:
                await asyncio.sleep(0.02)
        reads.clear()
        run = await view(Http(platform), run_id)
        assert run["steps"]["each"]["items"] == {"count": 400, "finished": 400, "succeeded": 400}
        assert sum(count for _, count in reads) <= 802 - large_runs.EVERY * 3


async def test_concurrent_readers_share_one_read(platform: Platform, http: Http, reads: list[tuple[int, int]]) -> None:
    await platform.add_version(chain("long", 200))
    run_id = await platform.request("long")
    for number in range(1, 200):
        await platform.run_step(run_id, "double" if number == 1 else f"double-{number}")
    views = await asyncio.gather(*(view(http, run_id) for _ in range(8)))
    assert all(one == views[0] for one in views)
    assert sum(step["state"] == "succeeded" for step in views[0]["steps"].values()) == 199
    assert sum(count for _, count in reads) == 1 + 199 * 3


@pytest.mark.parametrize(("runs", "steps"), [(2, 1000), (100, 5)])
async def test_the_cache_of_folded_runs_is_bounded(
    tmp_path: Path, reads: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch, runs: int, steps: int
) -> None:
    """Two of these runs fit, by number of runs or by total steps."""
    monkeypatch.setattr(run_states, "_STEPS", steps)
    async with running(tmp_path, gateway_runs=runs) as platform:
        http = Http(platform)
        first, second, third = [await platform.request() for _ in range(3)]
        for run_id in (first, second, first, second, third, second, first):
            assert (await view(http, run_id))["run_id"] == run_id
        assert [after > 0 for after, _ in reads] == [False, False, True, True, False, True, False]


async def test_a_run_with_a_deleted_version_is_shown_without_steps(platform: Platform, http: Http) -> None:
    run_id = await platform.request(version=77)
    await platform.finish(run_id, Outcome.CANCELLED, error="cancelled")
    seen = await view(http, run_id)
    assert (seen["state"], seen["steps"], seen["version"]) == ("cancelled", {}, 77)


async def test_an_unreadable_request_is_not_found(platform: Platform, http: Http) -> None:
    await platform.bus.publish(subjects.run("broken", "requested"), b"\xff not json")
    answer = await http("GET", "/v1/runs/broken")
    assert answer.status == 404


# ------------------------------------------------------------------------------------------------------------- cancel


async def test_cancel_is_recorded_once(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    answer = await http("POST", f"/v1/runs/{run_id}/cancel", {"reason": "wrong data"})
    assert (answer.status, answer.json()) == (202, {"run_id": run_id, "state": None})
    assert (await http("POST", f"/v1/runs/{run_id}/cancel", {"reason": "again"})).status == 202
    facts = [record.fact for record in await platform.log.read(run_id)]
    cancels = [fact for fact in facts if isinstance(fact, CancelRequested)]
    assert [cancel.reason for cancel in cancels] == ["wrong data"]
    assert cancels[0].requested_at > 1_700_000_000


async def test_cancel_without_a_body_and_of_a_finished_run(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    assert (await http("POST", f"/v1/runs/{run_id}/cancel")).status == 202
    await platform.finish(run_id)
    over = await http("POST", f"/v1/runs/{run_id}/cancel")
    assert (over.status, over.json()["state"]) == (200, "succeeded")
    assert (await http("POST", "/v1/runs/unknown/cancel")).status == 404
    assert (await http("POST", f"/v1/runs/{run_id}/cancel", {"reason": "x" * 1001})).fields == {"reason"}


# --------------------------------------------------------------------------------------------------------------- list


async def test_the_list_is_paged_newest_first(platform: Platform, http: Http) -> None:
    await platform.add_version(chain("listed"))
    ids = [await platform.request("listed", requested_at=1_700_000_000.0 + at) for at in range(5)]
    # Runs of the same time are ordered by id.
    ids += sorted([await platform.request("listed", requested_at=1_700_000_010.0) for _ in range(2)])
    ids.reverse()
    path = "/v1/runs?pipeline=listed&limit=3"
    page = (await http("GET", path)).json()
    found = [run["run_id"] for run in page["runs"]]
    # A new run does not shift the pages.
    newest = await platform.request("listed", requested_at=1_700_000_020.0)
    while page["next"]:
        page = (await http("GET", f"{path}&cursor={page['next']}")).json()
        found += [run["run_id"] for run in page["runs"]]
    assert found == ids
    assert await listed(http, "/v1/runs?pipeline=listed&limit=1") == [newest]
    assert (await http("GET", "/v1/runs?pipeline=none")).json() == {"runs": [], "next": None, "lag": 0}


async def listed(http: Http, path: str) -> list[str]:
    """Return the ids of a list: it includes every run in the log at request time."""
    answer = await http("GET", path)
    assert answer.status == 200, answer.json()
    return [run["run_id"] for run in answer.json()["runs"]]


async def test_the_list_by_state(platform: Platform, http: Http) -> None:
    await platform.add_version(chain("stated"))
    at = 1_700_000_000.0
    queued, running, done, failed = [
        await platform.request("stated", requested_at=at + n, labels={"n": str(n)}) for n in range(4)
    ]
    await platform.log.append([attempt_requested(running, "double")])
    await platform.run_step(done, "double")
    await platform.finish(done)
    await platform.finish(failed, Outcome.FAILED, error="why")
    for state, run_id in (("queued", queued), ("running", running), ("succeeded", done), ("failed", failed)):
        assert await listed(http, f"/v1/runs?pipeline=stated&state={state}") == [run_id]
    row = (await http("GET", "/v1/runs?pipeline=stated&state=failed")).json()["runs"][0]
    assert (row["error"], row["labels"], row["version"]) == ("why", {"n": "3"}, 1)
    assert row["finished_at"] > at
    await platform.log.append([attempt_requested(queued, "double")])
    assert await listed(http, "/v1/runs?pipeline=stated&state=running") == [running, queued]


async def test_a_state_filter_searches_beyond_the_first_page(platform: Platform, http: Http) -> None:
    await platform.add_version(chain("sparse"))
    wanted = [await platform.request("sparse", requested_at=1_700_000_000.0 + n) for n in range(2)]
    for _ in range(40):
        await platform.finish(await platform.request("sparse", requested_at=1_700_000_100.0))
    path = "/v1/runs?pipeline=sparse&state=queued&limit=1"
    assert await listed(http, path) == [wanted[1]]
    page = (await http("GET", path)).json()
    page = (await http("GET", f"{path}&cursor={page['next']}")).json()
    assert ([run["run_id"] for run in page["runs"]], page["next"]) == ([wanted[0]], None)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "query.limit"),
        ("limit=501", "query.limit"),
        ("limit=x", "query.limit"),
        ("state=odd", "query.state"),
        ("cursor=" + "x" * 601, "query.cursor"),
        ("cursor=%00", None),
        ("cursor=bm9uc2Vuc2U", None),
        ("cursor=%F0%9F%92%A9", None),
    ],
)
async def test_invalid_list_parameters_are_rejected(http: Http, query: str, field: str | None) -> None:
    answer = await http("GET", f"/v1/runs?{query}")
    assert answer.status == 422
    if field:
        assert answer.fields == {field}
    else:
        assert "cursor" in answer.json()["detail"]


# ------------------------------------------------------------------------------------------------------------- values


async def test_results_as_json_and_as_bytes(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    data = b"%PDF-1.7 report"
    sha256 = await platform.store.put_bytes(data)
    stored = Stored(
        ArtifactRef(
            sha256=sha256, size=len(data), media_type="application/pdf", format="file", filename='../rep"ört.pdf'
        )
    )
    await platform.run_step(run_id, "double", {"result": Inline({"a": [1, None]}), "report": stored})
    path = f"/v1/runs/{run_id}/value"
    inline = await http("GET", f"{path}?step=double")
    assert (inline.status, inline.json()) == (200, {"a": [1, None]})
    report = await http("GET", f"{path}?step=double&output=report")
    assert (report.status, report.body, report.headers["content-type"]) == (200, data, "application/pdf")
    assert report.headers["content-disposition"] == (
        "attachment; filename=\"rep_ört.pdf\"; filename*=UTF-8''rep%22%C3%B6rt.pdf".replace("ö", "_")
    )
    assert report.headers["x-content-type-options"] == "nosniff"
    part = await http("GET", f"{path}?step=double&output=report", headers={"range": "bytes=1-3"})
    assert (part.status, part.body) == (206, b"PDF")
    waiting = await http("GET", f"{path}?step=double-2")
    assert (waiting.status, waiting.json()["detail"]) == (404, "Step 'double-2' has no outputs yet: the run is running")
    assert (await http("GET", path)).status == 404
    assert (await http("GET", f"{path}?step=none")).status == 404
    other = await http("GET", f"{path}?step=double&output=none")
    assert other.status == 404
    assert other.json()["detail"] == "Step 'double' has no output 'none': it has 'result', 'report'"


async def test_pickles_are_returned_only_as_bytes(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    # Unpickling this would end the process.
    data = b"cos\n_exit\n(I3\ntR."
    sha256 = await platform.store.put_bytes(data)
    reference = ArtifactRef(
        sha256=sha256, size=len(data), media_type="text/html", format="pickle", filename="m.pkl", unsafe=True
    )
    await platform.run_step(run_id, "double", {"result": Stored(reference)})
    answer = await http("GET", f"/v1/runs/{run_id}/value?step=double")
    assert (answer.body, answer.headers["content-type"]) == (data, "application/octet-stream")
    assert answer.headers["content-disposition"].startswith("attachment")
    assert "sandbox" in answer.headers["content-security-policy"]


async def test_results_of_a_run_with_parts_and_references(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    await platform.run_step(run_id, "double", {"result": Inline(21), "other": Inline("x")})
    earlier = ResultOf(ResultRef(key="double", attempt=1, output="result"))
    parts = {
        "plain": Items((earlier, Inline(2))),
        "mixed": Fields(
            {"m": Stored(ArtifactRef(sha256="0" * 64, size=1, media_type="text/plain", format="text")), "n": earlier}
        ),
    }
    await platform.finish(run_id, outputs=parts)
    path = f"/v1/runs/{run_id}/value"
    several = await http("GET", path)
    assert (several.status, several.json()["detail"]) == (
        422,
        "The run has several outputs: name one of 'plain', 'mixed'",
    )
    assert (await http("GET", f"{path}?output=plain")).json() == [21, 2]
    mixed = await http("GET", f"{path}?output=mixed")
    assert mixed.headers["content-type"] == "application/vnd.penstock.value+json"
    assert mixed.json()["fields"]["n"] == {"value": 21}
    assert mixed.json()["fields"]["m"]["artifact"]["sha256"] == "0" * 64


async def test_the_pipeline_output_needs_no_name(platform: Platform, http: Http) -> None:
    pipeline = chain("single")
    assert list(pipeline.outputs) == ["result"]
    assert isinstance(pipeline.outputs["result"], Output)
    run_id = await platform.request()
    await platform.finish(run_id, outputs={"result": Inline(None)})
    answer = await http("GET", f"/v1/runs/{run_id}/value")
    assert (answer.status, answer.body) == (200, b"null")


async def test_a_pool_without_connected_executors_is_a_warning_and_explained(platform: Platform, http: Http) -> None:
    leases = Bucket(platform.bus, subjects.LEASES_BUCKET)
    (everything,) = await leases.list()
    offer = Offer(pool="elsewhere", slots=2, cpu=4, memory=2**33, gpu=0)
    holder = LeaseHolder(machine="", pid=1, began="", work="", duration=30, offer=offer)
    await leases.put("far", holder.model_dump_json().encode())
    await leases.purge(everything.key)
    try:
        executors: list[Any] = []
        for _ in range(100):
            executors = (await http("GET", "/v1/platform")).json()["executors"]
            if [one["name"] for one in executors] == ["far"]:
                break
            await asyncio.sleep(0.1)
        shown = {"name": "far", "pool": "elsewhere", "slots": 2, "cpu": 4.0, "memory": 2**33, "gpu": 0, "problems": []}
        assert executors == [shown]
        accepted = (await http("POST", "/v1/runs", {"pipeline": "chain", "inputs": {"n": 3}})).json()
        assert accepted["warnings"] == ["no executor of pool 'default' is connected: step double will wait for one"]
        await platform.log.append([attempt_requested(accepted["run_id"], "double")])
        found = (await http("GET", f"/v1/runs/{accepted['run_id']}/explain")).json()
        assert found["steps"][0]["sentence"].endswith("; no executor of pool 'default' is connected")
    finally:
        await leases.put(everything.key, everything.value)
        await leases.purge("far")


async def test_an_executor_that_has_stopped_is_expected_back_and_concurrent_readers_see_the_same(
    platform: Platform,
) -> None:
    leases = Bucket(platform.bus, subjects.LEASES_BUCKET)
    (everything,) = await leases.list()
    offer = Offer(pool="*", slots=2, cpu=4, memory=2**33, gpu=4)
    holder = LeaseHolder(machine="", pid=1, began="", work="", duration=30, offer=offer)
    body = holder.model_dump_json().encode()
    await leases.put("large", body)
    await leases.delete("large", keep=body)
    try:
        pools = KnownPools(platform.bus)
        several = await asyncio.gather(*(pools.available(chain()) for _ in range(5)))
        assert [[one.executor for one in found.executors] for found in several] == [[everything.key]] * 5
        assert [[one.executor for one in found.restarting] for found in several] == [["large"]] * 5
    finally:
        await leases.purge("large")
