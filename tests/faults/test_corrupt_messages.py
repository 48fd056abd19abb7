"""Unreadable messages on every subject: each is parked or rejected, and affects no other."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator

import nats
import pytest

from penstock import Client
from penstock_adapters.nats.bus import Bus
from penstock_contracts import subjects
from penstock_contracts.commands import Parked
from penstock_testkit.servers.cluster import Cluster

PIPELINE = """
import time
from penstock import pipeline, step

@step
def slow(x: int) -> int:
    time.sleep(0.4)
    return x + 1

@pipeline
def pair() -> int:
    return slow(slow(1))
"""
GARBAGE = [b"", b"\xff\xfe", b"{", b"null", b"[]", b'{"run_id": 1}', b"9" * 100_000, b'{"a":' * 5000]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as running:
        running.source("garbled.py", PIPELINE)
        yield running


@pytest.fixture(scope="module")
def client(cluster: Cluster) -> Client:
    found = Client(url=cluster.url, token=cluster.token)
    found.pipelines.register(f"{cluster.src / 'garbled.py'}:pair")
    return found


def on_bus(cluster: Cluster, work: Callable[[Bus], Awaitable[None]]) -> None:
    async def run() -> None:
        connection = await nats.connect(cluster.nats.url)
        try:
            await work(Bus(connection))
        finally:
            await connection.close()

    asyncio.run(run())


def parked(cluster: Cluster) -> list[Parked]:
    found: list[Parked] = []

    async def read(bus: Bus) -> None:
        found.extend(Parked.model_validate_json(m.data) for m in await bus.read(subjects.PARKED, "parked.>"))

    on_bus(cluster, read)
    return found


def test_garbage_on_every_subject_affects_no_run(cluster: Cluster, client: Client) -> None:
    run_id = client.run("pair").run_id

    async def publish(bus: Bus) -> None:
        for n, body in enumerate(GARBAGE):
            other = f"garbage{n}"
            tails = ["requested", "cancel", "finished", "step.slow.1.requested.default", "step.slow.1.finished"]
            tails += ["step.slow.1.started", "step.slow.skipped", "step.slow.x.finished", "nonsense", "step.a b"]
            for tail in tails:
                if " " not in tail:
                    await bus.publish(subjects.run(other, tail), body)
            await bus.publish(f"runs.99.{other}.requested", body)
            await bus.publish(f"ticks.none{n}", body)
            await bus.publish(f"logs.{run_id}.slow.1", body)
            await bus.publish(f"builds.default.none.registered{n}", body)
            await bus.publish(f"deployments.default.broken.{n + 1}", body)
            await bus.publish("events.default.broken", body)
            await bus.publish(f"trigger-due.none{n}", body)
            for command in (subjects.BUILDER_REGISTER, subjects.ARTIFACTS_LOCATE, subjects.ARTIFACTS_STAT):
                answer = json.loads((await bus.request(command, body)).data)
                assert answer["error"], command

    on_bus(cluster, publish)
    run = client.runs.wait(run_id, timeout=60)
    assert (run.state, client.artifacts.load(run_id)) == ("succeeded", 3)
    assert client.runs.wait(client.run("pair").run_id, timeout=60).state == "succeeded"
    for name in cluster.names:
        assert cluster.alive(name), cluster.log(name)
    found = parked(cluster)
    assert {"scheduler", "executor", "cron", "triggers"} <= {entry.service for entry in found}
    assert all(entry.error for entry in found)


def test_an_unreadable_attempt_end_counts_as_lost_and_is_retried(cluster: Cluster, client: Client) -> None:
    run_id = client.run("pair").run_id

    async def publish(bus: Bus) -> None:
        await bus.publish(subjects.finished(run_id, "slow", 1), b"\xff")

    on_bus(cluster, publish)
    run = client.runs.wait(run_id, timeout=60)
    assert (run.state, run.steps["slow"].attempts, client.artifacts.load(run_id)) == ("succeeded", 2, 3)


def test_an_unreadable_attempt_request_is_retried(cluster: Cluster, client: Client) -> None:
    cluster.kill("scheduler")
    run_id = client.run("pair").run_id

    async def publish(bus: Bus) -> None:
        await bus.publish(subjects.run(run_id, "step.slow.1.requested.default"), b"{}")

    on_bus(cluster, publish)
    cluster.restart("scheduler")
    run = client.runs.wait(run_id, timeout=60)
    assert (run.state, run.steps["slow"].attempts, client.artifacts.load(run_id)) == ("succeeded", 2, 3)


def test_a_run_with_an_unreadable_request_finishes(cluster: Cluster, client: Client) -> None:
    """Its subject in the log is occupied permanently, so the run must not wait for it."""
    before = len(parked(cluster))

    async def publish(bus: Bus) -> None:
        await bus.publish(subjects.run("unreadable1", "requested"), b"{}")

    on_bus(cluster, publish)
    deadline = time.monotonic() + 20
    while len(parked(cluster)) == before:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert client.runs.wait(client.run("pair").run_id, timeout=60).state == "succeeded"
