"""Traces: from the event of a trigger to the last step of the run that follows, received by a real OTLP receiver."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from penstock import Client
from penstock_testkit.servers.cluster import Cluster
from penstock_testkit.servers.otlp import OtlpReceiver

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"

PIPELINES = """
import os
from penstock import pipeline, run_pipeline, step

@step
def variable() -> str:
    return os.environ["TRACEPARENT"]

@step(retries=1)
def flaky(text: str) -> str:
    from penstock import context
    if context().attempt == 1:
        raise ValueError("not yet")
    return text

@pipeline
def child() -> str:
    return variable()

@pipeline
def parent() -> list[str]:
    own = flaky(variable())
    return [own, run_pipeline(child)]

@pipeline
def follower() -> str:
    return variable()
"""


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OtlpReceiver]:
    started = OtlpReceiver(tmp_path_factory.mktemp("otlp"))
    started.start()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, receiver: OtlpReceiver) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("traces"), env={"PENSTOCK_OTLP_ENDPOINT": receiver.url}) as started:
        yield started


def received(receiver: OtlpReceiver, count: int, trace: str = TRACE) -> list[dict[str, Any]]:
    deadline = time.monotonic() + 90
    while len(found := [span for span in receiver.spans() if span["trace"] == trace]) < count:
        assert time.monotonic() < deadline, receiver.spans()
        time.sleep(0.1)
    return found


def test_one_trace_from_the_event_to_the_last_step(
    cluster: Cluster, receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a child run, a retry, and the run of a deployment that follows the end of the first one."""
    client = Client(url=cluster.url, token=cluster.token)
    source = cluster.source("traced.py", PIPELINES)
    for name in ("child", "parent", "follower"):
        client.pipelines.register(f"{source}:{name}", publish=True)
    started = {"kind": "event", "name": "started", "types": ["com.acme.started"]}
    client.deployments.apply("parents", {"pipeline": "parent", "triggers": [started]})
    followed = {
        "kind": "event",
        "name": "ended",
        "types": ["penstock.run.finished.v1"],
        "filter": "data.pipeline == 'parent'",
    }
    client.deployments.apply("followers", {"pipeline": "follower", "triggers": [followed]})
    monkeypatch.setenv("TRACEPARENT", PARENT)
    client.events.send("com.acme.started", {})
    monkeypatch.delenv("TRACEPARENT")
    spans = {(span["name"], span["attributes"].get("penstock.attempt", 0)): span for span in received(receiver, 9)}
    steps = {(name, number) for name, number in spans if name.startswith("step ")}
    assert steps >= {("step variable", 1), ("step flaky", 1), ("step flaky", 2), ("step child", 1)}, steps
    run = spans["run parent", 0]
    assert run["parent"] == "00f067aa0ba902b7" and run["attributes"]["penstock.event_type"] == "com.acme.started"
    assert spans["step flaky", 1]["parent"] == spans["step flaky", 2]["parent"] == run["span"]
    assert "not yet" in spans["step flaky", 1]["error"] and not spans["step flaky", 2]["error"]
    assert spans["run child", 0]["parent"] == spans["step child", 1]["span"]
    assert spans["run follower", 0]["parent"] == run["span"]
    parent = next(one for one in client.runs.list(pipeline="parent"))
    own, childs = client.artifacts.load(parent.run_id)
    assert {own.split("-")[1], childs.split("-")[1]} == {TRACE}
    assert own.split("-")[2] in {span["span"] for span in receiver.spans() if span["name"] == "step variable"}
    for span in spans.values():
        assert run["start"] <= span["start"] <= span["end"] <= time.time_ns()


def test_a_request_continues_the_trace_of_its_client(
    cluster: Cluster, receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(url=cluster.url, token=cluster.token)
    source = cluster.source("traced_alone.py", PIPELINES)
    version = client.pipelines.register(f"{source}:child")
    other = "a" * 32
    monkeypatch.setenv("TRACEPARENT", f"00-{other}-00f067aa0ba902b7-01")
    run = client.run(version, wait=True)
    assert client.artifacts.load(run.run_id).startswith(f"00-{other}-")
    assert {span["name"] for span in received(receiver, 2, other)} == {"run child", "step variable"}
