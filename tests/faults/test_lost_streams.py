"""Every stream and every durable consumer is deleted behind the back of the services: runs start, go on and finish."""

from __future__ import annotations

import asyncio
import http.client
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import nats
import orjson
import pytest

from penstock import Client
from penstock_adapters.nats import bootstrap
from penstock_contracts import subjects
from penstock_testkit.servers.cluster import Cluster

PIPELINE = """
import time

from penstock import pipeline, sleep, step, wait_for_event

@step
def inc(x: int) -> int:
    return x + 1

@step(concurrency="solo:1")
def alone(x: int) -> int:
    time.sleep(1.0)
    return x + 1

@pipeline
def short(start: int) -> int:
    return inc(inc(start))

@pipeline
def sleeping() -> int:
    return inc(1).after(sleep("4s"))

@pipeline
def waiting(key: str) -> int:
    return inc(1).after(wait_for_event("go", key=key))

@pipeline
def queued(start: int) -> int:
    return alone(alone(start))
"""
PIPELINES = ("short", "sleeping", "waiting", "queued")
STREAMS = [str(stream["name"]) for stream in bootstrap.streams()]
CONSUMERS = [(stream, str(settings["durable_name"])) for stream, settings in bootstrap.consumers(["default"])]
RESTORED = (subjects.RUNS, *subjects.FROM_LOG, f"KV_{subjects.LIMITS_BUCKET}")
LOST = [stream for stream in STREAMS if stream not in (*RESTORED, *subjects.EXPENDABLE)]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("lost")) as running:
        running.source("lost.py", PIPELINE)
        register(running)
        yield running


@pytest.fixture(scope="module")
def client(cluster: Cluster) -> Client:
    return Client(url=cluster.url, token=cluster.token)


def register(cluster: Cluster) -> None:
    client = Client(url=cluster.url, token=cluster.token)
    for name in PIPELINES:
        client.pipelines.register(f"{cluster.src / 'lost.py'}:{name}")


def api(cluster: Cluster, *verbs: str) -> list[dict[str, Any]]:
    """Call the JetStream API; a body follows the verb after a space."""

    async def ask() -> list[dict[str, Any]]:
        connection = await nats.connect(cluster.nats.urls)
        try:
            found = [verb.partition(" ") for verb in verbs]
            return [
                orjson.loads((await connection.request(f"$JS.API.{verb}", body.encode(), timeout=10)).data)
                for verb, _, body in found
            ]
        finally:
            await connection.close()

    return asyncio.run(ask())


def until(condition: Callable[[], Any], cluster: Cluster, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        logs = "\n".join(f"--- {name}\n{cluster.log(name, 900)}" for name in cluster.names)
        assert time.monotonic() < deadline, f"{readyz(cluster)}\n{logs}"
        time.sleep(0.05)


def readyz(cluster: Cluster) -> dict[str, Any]:
    connection = http.client.HTTPConnection(cluster.url.removeprefix("http://"), timeout=10)
    connection.request("GET", "/readyz")
    try:
        return orjson.loads(connection.getresponse().read())
    finally:
        connection.close()


def damages(client: Client) -> list[dict[str, Any]]:
    return client.transport.json("GET", "/v1/admin/integrity")["damages"]


def lost(client: Client) -> set[str]:
    return {one["stream"] for one in damages(client) if one["open"]}


def delete(cluster: Cluster, streams: Sequence[str]) -> None:
    """Delete streams, each after the former has been created again."""
    for stream in streams:
        [before] = api(cluster, f"STREAM.INFO.{stream}")
        assert api(cluster, f"STREAM.DELETE.{stream}")[0].get("success"), stream

        def again(stream: str = stream, before: dict[str, Any] = before) -> bool:
            [now] = api(cluster, f"STREAM.INFO.{stream}")
            return "config" in now and now["created"] != before["created"]

        until(again, cluster)
        [now] = api(cluster, f"STREAM.INFO.{stream}")
        assert now["state"]["last_seq"] >= before["state"]["last_seq"]
        assert now["config"] == {**before["config"], "first_seq": now["config"]["first_seq"]}


def test_every_consumer_is_created_again_and_runs_go_on(cluster: Cluster, client: Client) -> None:
    runs = [client.run("sleeping"), client.run("short", {"start": 0}), client.run("queued", {"start": 0})]
    answers = api(cluster, *(f"CONSUMER.DELETE.{stream}.{name}" for stream, name in CONSUMERS))
    assert all(answer.get("success") for answer in answers), answers
    runs.append(client.run("short", {"start": 1}))
    for run in runs:
        assert client.runs.wait(run.run_id, timeout=90).state == "succeeded"
    until(
        lambda: all("config" in one for one in api(cluster, *(f"CONSUMER.INFO.{s}.{name}" for s, name in CONSUMERS))),
        cluster,
    )
    assert readyz(cluster)["ready"]


@pytest.mark.parametrize("streams", [[one] for one in RESTORED] + [[*subjects.EXPENDABLE]], ids=lambda found: found[0])
def test_runs_go_on_after_streams_are_deleted(cluster: Cluster, client: Client, streams: list[str]) -> None:
    client.limits.set("solo", 1)
    done = client.run("short", {"start": 5})
    assert client.runs.wait(done.run_id, timeout=90).state == "succeeded"
    sleeping, waiting = client.run("sleeping"), client.run("waiting", {"key": streams[0]})
    queued = [client.run("queued", {"start": start}) for start in range(2)]
    until(lambda: client.runs.get(waiting.run_id).steps["wait_for_event"].state == "suspended", cluster)
    client.runs.list(limit=1)  # waits until the read model is current
    delete(cluster, streams)
    if streams[0] in RESTORED:
        until(lambda: any(one["stream"] == streams[0] and not one["open"] for one in damages(client)), cluster)
    assert client.runs.wait(sleeping.run_id, timeout=90).state == "succeeded"
    client.events.send("go", key=streams[0])
    assert client.runs.wait(waiting.run_id, timeout=90).state == "succeeded"
    for start, run in enumerate(queued):
        assert client.runs.wait(run.run_id, timeout=90).state == "succeeded"
        assert client.artifacts.load(run.run_id) == start + 2
    assert client.runs.get(done.run_id).state == "succeeded"
    assert [limit.slots for limit in client.limits.list() if limit.name == "solo"] == [1]
    until(lambda: readyz(cluster)["ready"], cluster)
    assert not lost(client)


def test_lost_contents_are_reported_until_they_are_accepted(cluster: Cluster, client: Client) -> None:
    filled = [one for one in LOST if api(cluster, f"STREAM.INFO.{one}")[0]["state"]["messages"]]
    assert filled
    sleeping = client.run("sleeping")
    delete(cluster, LOST)
    until(lambda: lost(client) == {*filled}, cluster)
    until(lambda: not readyz(cluster)["ready"], cluster)
    register(cluster)
    run = client.run("short", {"start": 1})
    assert client.runs.wait(run.run_id, timeout=90).state == "succeeded"
    assert client.artifacts.load(run.run_id) == 3
    client.transport.json("POST", "/v1/admin/integrity/accept")
    until(lambda: readyz(cluster)["ready"], cluster)
    assert client.runs.wait(sleeping.run_id, timeout=90).state == "succeeded"


def test_timers_of_deployments_are_set_again(cluster: Cluster, client: Client) -> None:
    nightly = {"kind": "cron", "name": "nightly", "cron": "0 3 * * *"}
    window = {"kind": "batch", "seconds": 3, "count": 100}
    batch = {"kind": "event", "name": "on", "types": ["com.acme.n"], "window": window}
    definition = {"pipeline": "short", "triggers": [nightly, batch], "inputs": {"start": 1}}
    client.deployments.apply("timed", definition)
    client.events.send("com.acme.n", {})
    query = f'STREAM.INFO.{subjects.TIMERS} {{"subjects_filter": ">"}}'

    def timers() -> set[str]:
        [found] = api(cluster, query)
        return {name.partition(".")[0] for name in found["state"].get("subjects") or ()}

    until(lambda: {"armed", "trigger-timers"} <= timers(), cluster)
    delete(cluster, [subjects.TIMERS])
    until(lambda: "armed" in timers(), cluster)
    until(lambda: any(run.trigger.get("deployment") == "timed" for run in client.runs.list("short")), cluster)
    client.deployments.delete("timed")
