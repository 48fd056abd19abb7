"""Traces over HTTP: causes and effects across events, runs and models, with the triggers service beside the gateway."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from gateway_platform import Http, Platform

from penstock_adapters.nats.event_stream import EventStream
from penstock_core.deployments.events import Event
from penstock_core.facts import StepEvent
from penstock_core.pipeline.values import Inline

pytestmark = pytest.mark.asyncio(loop_scope="module")


def names(node: dict[str, Any]) -> list[Any]:
    """A node as its name and those of what it caused."""
    name = (node["pipeline"] and f"{node['pipeline']} {node['state']} {node['trigger']}") or node["type"]
    return [name, *(names(child) for child in node["caused"])]


async def trace(http: Http, which: Any, runs: int) -> dict[str, Any]:
    """The trace, once it has so many runs."""
    deadline = time.monotonic() + 60
    while True:
        found = (await http("GET", f"/v1/trace/{which}")).json()
        if str(found).count("'kind': 'run'") >= runs:
            return found["root"]
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.05)


def deployment(type: str, **more: Any) -> dict[str, Any]:
    trigger = {"kind": "event", "name": "on", "types": [type], **more}
    return {"definition": {"pipeline": "chain", "triggers": [trigger]}}


async def test_a_trace_begins_with_the_first_cause_wherever_it_is_requested(platform: Platform, http: Http) -> None:
    await http("PUT", "/v1/deployments/first", deployment("com.acme.traced", inputs={"n": "1"}))
    follow = deployment("penstock.run.finished.v1", filter="data.deployment == 'first'", inputs={"n": "2"})
    await http("PUT", "/v1/deployments/second", follow)
    event = {"type": "com.acme.traced", "source": "s", "id": "1"}
    sent = (await http("POST", "/v1/events", event)).json()
    [started] = (await trace(http, sent["sequence"], 1))["caused"]
    assert started["state"] == "running"
    await platform.finish(started["id"], outputs={"result": Inline(1)})
    root = await trace(http, sent["digest"], 2)
    assert names(root) == [
        "com.acme.traced",
        ["chain succeeded first / on", ["penstock.run.finished.v1", ["chain running second / on"]]],
    ]
    last = root["caused"][0]["caused"][0]["caused"][0]
    assert last["id"] != started["id"]
    found = await trace(http, last["id"], 2)
    assert names(found) == names(root)
    assert [root["requested"], found["requested"]] == [True, False]
    assert found["caused"][0]["caused"][0]["caused"][0]["requested"]


async def test_an_event_that_a_step_sent_is_part_of_the_trace(platform: Platform, http: Http) -> None:
    follow = deployment("com.acme.drifted", inputs={"n": "2"})
    await http("PUT", "/v1/deployments/retrain", follow)
    run_id = await platform.request()
    sent = (StepEvent(type="com.acme.drifted", data={"column": "age"}),)
    await platform.run_step(run_id, "double", events=sent)
    # The scheduler publishes it; here, only its id counts.
    event = Event(project="default", type="com.acme.drifted", source="penstock/steps", id=f"{run_id}/double/1")
    await EventStream(platform.bus).publish(event)
    root = await trace(http, run_id, 2)
    # A run by hand has no trigger.
    assert [root["id"], names(root)[1:]] == [run_id, [["com.acme.drifted", ["chain running retrain / on"]]]]
    assert (await trace(http, root["caused"][0]["id"], 2))["id"] == run_id


async def test_a_run_by_hand_and_what_is_not_there(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    root = (await http("GET", f"/v1/trace/{run_id}")).json()["root"]
    assert (root["id"], root["trigger"], root["caused"], root["requested"]) == (run_id, "", [], True)
    for which in ("999999999", "0" * 32, "nobody", "a..b"):
        assert (await http("GET", f"/v1/trace/{which}")).status == 404


async def test_what_the_trace_is_requested_for_is_in_it(platform: Platform, http: Http) -> None:
    first = (await http("POST", "/v1/runs", {"pipeline": "chain", "inputs": {"n": 1}})).json()["run_id"]
    again = (await http("POST", f"/v1/runs/{first}/rerun")).json()["run_id"]
    root = (await http("GET", f"/v1/trace/{again}")).json()["root"]
    assert (root["id"], root["requested"]) == (first, False)
    [rerun] = root["caused"]
    assert (rerun["id"], rerun["trigger"], rerun["requested"]) == (again, "rerun", True)
