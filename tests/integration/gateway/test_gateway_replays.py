"""Replays of past events over HTTP: decisions side by side, and isolated runs."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from gateway_platform import Answer, Http, Platform, chain, runs, started

from penstock_adapters.nats.event_stream import EventStream
from penstock_core.facts import CacheMode, RunFinished, RunRequested
from penstock_core.pipeline.values import Inline

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def deploy(http: Http, name: str, filter: str, version: int | None = None, **more: Any) -> None:
    trigger = {
        "kind": "event",
        "name": "on",
        "types": [f"com.acme.{name}"],
        "filter": filter,
        "inputs": {"n": "data.n"},
    }
    definition = {"pipeline": "chain", "version": version, "triggers": [trigger | more], "labels": {"team": "a"}}
    answer = await http("PUT", f"/v1/deployments/{name}", {"definition": definition})
    assert answer.status == 200, answer.json()


async def send(http: Http, name: str, *numbers: int) -> list[int]:
    found: list[int] = []
    for n in numbers:
        event = {"type": f"com.acme.{name}", "source": name, "id": str(n), "data": {"n": n}}
        found.append((await http("POST", "/v1/events", event)).json()["sequence"])
    return found


async def replay(http: Http, name: str, key: str | None = None, **body: Any) -> Answer:
    return await http("POST", f"/v1/deployments/{name}/replay", body, headers={"idempotency-key": key} if key else {})


async def request_of(platform: Platform, run_id: str) -> RunRequested:
    fact = (await platform.log.read(run_id))[0].fact
    assert isinstance(fact, RunRequested)
    return fact


async def test_past_events_run_through_another_revision_in_isolated_runs(platform: Platform, http: Http) -> None:
    since = time.time() - 1
    await deploy(http, "past", "data.n > 1")
    first, second, third = await send(http, "past", 1, 2, 3)
    real = {run.trigger["event_id"]: run.run_id for run in await started(platform, "past", 2)}
    await deploy(http, "past", "data.n != 2")
    decided = (await replay(http, "past", since=since, decisions_only=True)).json()
    assert (decided["id"], decided["revision"], decided["events"], decided["truncated"]) == ("", 2, 3, False)
    outcomes = [
        (one["event"], one["before"]["outcome"], one["after"]["outcome"], one["differs"])
        for one in decided["decisions"]
    ]
    assert outcomes == [
        (first, "filtered", "started", True),
        (second, "started", "filtered", True),
        (third, "started", "started", False),
    ]
    assert decided["decisions"][1]["after"]["clauses"][0]["text"] == "data.n != 2"
    assert decided["runs"] == [
        {"event": first, "trigger": "on", "run_id": None, "error": "", "before": None},
        {"event": third, "trigger": "on", "run_id": None, "error": "", "before": real["3"]},
    ]
    answers = [await replay(http, "past", "key-1", since=since) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    one, other = answers[0].json()["runs"]
    assert other["before"] == real["3"]
    fact = await request_of(platform, one["run_id"])
    assert fact.shadow
    assert (fact.inputs["n"], fact.labels) == (Inline(1), {"team": "a", "shadow": answers[0].json()["id"]})
    assert (fact.priority, fact.cache, fact.requested_by) == (-10, CacheMode.OFF, "token:default")
    assert (fact.trigger["type"], fact.trigger["revision"], fact.trigger["event_id"]) == ("replay", "2", "1")
    # The deployment has no further runs.
    assert len(await runs(platform, "past")) == 2
    listed = (await http("GET", f"/v1/runs?label=shadow={answers[0].json()['id']}")).json()["runs"]
    assert {run["run_id"] for run in listed} == {one["run_id"], other["run_id"]}


async def test_the_end_of_a_shadow_run_is_no_event(platform: Platform, http: Http) -> None:
    await deploy(http, "ended", "")
    [sequence] = await send(http, "ended", 1)
    [real] = await started(platform, "ended")
    [run] = (await replay(http, "ended", event=str(sequence))).json()["runs"]
    again = (await http("POST", f"/v1/runs/{run['run_id']}/rerun")).json()["run_id"]
    assert (await request_of(platform, again)).shadow
    for run_id in (run["run_id"], again, real.run_id):
        await platform.finish(run_id)
    deadline = time.monotonic() + 60
    while True:
        events = await EventStream(platform.bus).since("default", RunFinished.ce_type, 0.0)
        if real.run_id in {event.id for event in events}:  # the ends before it were handled
            break
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    assert not {run["run_id"], again} & {event.id for event in events}


async def test_another_version_of_the_pipeline_also_an_experiment(platform: Platform, http: Http) -> None:
    await deploy(http, "versions", "")
    await platform.add_version(chain(steps=1), 7, publish=False)
    [sequence] = await send(http, "versions", 1)
    await started(platform, "versions")
    found = (await replay(http, "versions", event=str(sequence), version=7)).json()
    assert (found["version"], (await request_of(platform, found["runs"][0]["run_id"])).version) == (7, 7)
    assert (await replay(http, "versions", event=str(sequence), version=99)).status == 404


async def test_a_key_that_was_used_for_another_revision_does_not_show_its_runs(platform: Platform, http: Http) -> None:
    since = time.time() - 1
    await deploy(http, "keyed", "true")
    await send(http, "keyed", 1)
    await started(platform, "keyed", 1)
    await deploy(http, "keyed", "true", inputs={"n": "data.n + 10"})
    old, new, again = [
        (await replay(http, "keyed", "same", since=since, revision=revision)).json()["runs"][0]["run_id"]
        for revision in (1, 2, 2)
    ]
    values = [(await request_of(platform, run_id)).inputs["n"] for run_id in (old, new)]
    assert values == [Inline(1), Inline(11)] and new == again


async def test_windows_and_inputs_that_do_not_fit(platform: Platform, http: Http) -> None:
    window = {"kind": "batch", "seconds": 1000, "count": 2}
    await deploy(http, "windows", "", window=window, inputs={"n": "events.size()"})
    events = await send(http, "windows", 1, 2, 3)
    [real] = await started(platform, "windows")
    found = (await replay(http, "windows", since=0)).json()
    assert [(one["event"], one["before"]) for one in found["runs"]] == [(events[1], real.run_id)]
    await deploy(http, "windows", "", inputs={"n": "string(data.n)"})
    found = (await replay(http, "windows", since=0, limit=2)).json()
    assert (found["events"], found["truncated"]) == (2, True)
    assert [one["run_id"] for one in found["runs"]] == [None, None]
    assert "inputs.n" in found["runs"][0]["error"]


async def test_requests_that_are_not_valid_are_refused(http: Http) -> None:
    await deploy(http, "invalid", "")
    answer = await replay(http, "invalid")
    assert (answer.status, answer.fields) == (422, {"since"})
    assert (await replay(http, "unknown", since=0)).status == 404
    assert (await replay(http, "invalid", since=0, revision=9)).status == 404
    assert (await replay(http, "invalid", event="99999")).status == 404
    assert (await replay(http, "invalid", since=0, limit=5000)).status == 422
    assert (await replay(http, "invalid", since=time.time() + 100)).json()["events"] == 0
    await http("PUT", "/v1/deployments/none", {"definition": {"pipeline": "chain", "inputs": {"n": 1}}})
    assert (await replay(http, "none", since=0)).status == 422
