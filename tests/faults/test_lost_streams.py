"""Every stream and every durable consumer is deleted behind the back of the services: runs start, go on and finish."""

from __future__ import annotations

import asyncio
import http.client
import time
from collections.abc import Callable, Iterator
from typing import Any

import nats
import orjson
import pytest

from penstock import Client
from penstock_adapters.nats import bootstrap
from penstock_contracts import subjects
from penstock_testkit.servers.cluster import Cluster

PIPELINE = """
from penstock import pipeline, sleep, step, wait_for_event

@step
def inc(x: int) -> int:
    return x + 1

@pipeline
def short(start: int) -> int:
    return inc(inc(start))

@pipeline
def sleeping() -> int:
    return inc(1).after(sleep("6s"))

@pipeline
def waiting(key: str) -> int:
    return inc(1).after(wait_for_event("go", key=key))
"""
STREAMS = [str(stream["name"]) for stream in bootstrap.streams()]
CONSUMERS = [(stream, str(settings["durable_name"])) for stream, settings in bootstrap.consumers(["default"])]
RECOVERED = {
    subjects.TIMERS,
    *(f"KV_{bucket}" for bucket in (subjects.WAITS_BUCKET, subjects.LIMITS_BUCKET)),
    *(f"KV_{bucket}" for bucket in (subjects.CACHE_BUCKET, subjects.MARKS_BUCKET, subjects.INTEGRITY_BUCKET)),
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("lost"), env={"PENSTOCK_SCHEDULER_LIMITS_CHECK": "2"}) as running:
        running.source("lost.py", PIPELINE)
        yield running


@pytest.fixture(scope="module")
def client(cluster: Cluster) -> Client:
    return Client(url=cluster.url, token=cluster.token)


def register(cluster: Cluster, client: Client) -> None:
    for name in ("short", "sleeping", "waiting"):
        client.pipelines.register(f"{cluster.src / 'lost.py'}:{name}")


def api(cluster: Cluster, verb: str) -> dict[str, Any]:
    async def ask() -> dict[str, Any]:
        connection = await nats.connect(cluster.nats.urls)
        try:
            return orjson.loads((await connection.request(f"$JS.API.{verb}", timeout=10)).data)
        finally:
            await connection.close()

    return asyncio.run(ask())


def until(condition: Callable[[], bool], cluster: Cluster, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "\n".join(f"--- {name}\n{cluster.log(name, 900)}" for name in cluster.names)
        time.sleep(0.1)


def readyz(cluster: Cluster) -> dict[str, Any]:
    connection = http.client.HTTPConnection(cluster.url.removeprefix("http://"), timeout=10)
    connection.request("GET", "/readyz")
    try:
        return orjson.loads(connection.getresponse().read())
    finally:
        connection.close()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_deleted_consumers_are_created_again_and_runs_go_on(cluster: Cluster, client: Client) -> None:
    register(cluster, client)
    sleeping = client.run("sleeping")
    before = client.run("short", {"start": 0})
    for stream, name in CONSUMERS:
        assert api(cluster, f"CONSUMER.DELETE.{stream}.{name}").get("success"), name
    after = client.run("short", {"start": 1})
    for run in (before, after, sleeping):
        assert client.runs.wait(run.run_id, timeout=90).state == "succeeded"
    for stream, name in CONSUMERS:
        until(lambda stream=stream, name=name: "config" in api(cluster, f"CONSUMER.INFO.{stream}.{name}"), cluster)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("stream", STREAMS)
def test_a_deleted_stream_is_created_again_and_new_runs_finish(cluster: Cluster, client: Client, stream: str) -> None:
    register(cluster, client)
    sleeping, waiting = client.run("sleeping"), client.run("waiting", {"key": stream})
    last = api(cluster, f"STREAM.INFO.{stream}")["state"]["last_seq"]
    assert api(cluster, f"STREAM.DELETE.{stream}").get("success")
    until(lambda: "config" in api(cluster, f"STREAM.INFO.{stream}"), cluster)
    assert api(cluster, f"STREAM.INFO.{stream}")["state"]["last_seq"] >= last
    if stream in RECOVERED:
        assert client.runs.wait(sleeping.run_id, timeout=90).state == "succeeded"
        client.events.send("go", key=stream)
        assert client.runs.wait(waiting.run_id, timeout=90).state == "succeeded"
    else:
        until(lambda: any(f"stream {stream} was deleted" in text for text in readyz(cluster)["problems"]), cluster)
    register(cluster, client)
    run = client.run("short", {"start": 1})
    assert client.runs.wait(run.run_id, timeout=90).state == "succeeded"
    assert client.artifacts.load(run.run_id) == 3
