"""Services are killed while steps register models: each success registers once, and every change is published."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator

import nats
import pytest

from penstock import Client
from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.event_stream import EventStream
from penstock_core.deployments.events import Event
from penstock_testkit.servers.cluster import Cluster

PIPELINES = """
import time
from penstock import context, pipeline, step

@step(retries=1)
def train(seed: int) -> int:
    context().log_metric("accuracy", seed / 100)
    context().register_model("churn", {"seed": seed}, alias="champion", gate="accuracy > champion.accuracy")
    time.sleep(0.05)
    if seed % 4 == 3 and context().attempt == 1:
        raise ConnectionError("what was to be registered must not be")
    return seed

@pipeline
def training(seeds: list[int]):
    return train.map(seed=seeds)
"""
RUNS, EACH = 6, 4
VICTIMS = ["scheduler", "scheduler-2", "gateway", "executor", "nats"]


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("models"), replicas={"scheduler": 2}) as running:
        running.source("models.py", PIPELINES)
        yield running


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_models_of_successful_attempts_are_registered_and_published_once(cluster: Cluster) -> None:
    client = Client(url=cluster.url, token=cluster.token)
    version = client.pipelines.register(f"{cluster.src / 'models.py'}:training")
    chance = random.Random(3)
    runs = []
    for n in range(RUNS):
        runs.append(client.run(version, {"seeds": list(range(n * EACH, (n + 1) * EACH))}).run_id)
        victim = chance.choice(VICTIMS)
        time.sleep(chance.uniform(0.0, 0.4))
        cluster.kill(victim)
        time.sleep(chance.uniform(0.0, 0.3))
        cluster.restart(victim)
    ended = [client.runs.wait(run_id, timeout=120) for run_id in runs]
    assert [run.state for run in ended] == ["succeeded"] * RUNS
    # Each successful attempt has one version, and no other attempt has one.
    good = {(run.run_id, step.key, step.attempts) for run in ended for step in run.steps.values() if step.item_of}
    versions = client.models.versions("churn")
    assert {(one.run_id, one.step, one.attempt) for one in versions} == good
    assert sorted(one.version for one in versions) == list(range(1, RUNS * EACH + 1))
    history = client.models.history("churn")
    # Each requested the alias once: the move succeeded or was rejected, and each new holder beat the previous one.
    asked = [entry for entry in history if entry.kind in ("promoted", "promotion-refused")]
    assert len(asked) == RUNS * EACH
    accuracy = {one.version: one.metrics["accuracy"] for one in versions}
    moves = [accuracy[entry.version] for entry in asked if entry.kind == "promoted" and entry.version]
    assert moves == sorted(moves)
    assert moves[-1] == max(accuracy.values())
    published = asyncio.run(events(cluster, len(history)))
    assert sorted(event.data["revision"] for event in published) == [entry.revision for entry in history]


async def events(cluster: Cluster, count: int) -> list[Event]:
    """Return the events of models once there are that many, or after a timeout."""
    connection = await nats.connect(cluster.nats.url)
    try:
        bus, deadline = Bus(connection), time.monotonic() + 60
        while True:
            found = await EventStream(bus).since("default", "penstock.model.>", 0.0)
            if len(found) >= count or time.monotonic() > deadline:
                return found
            await asyncio.sleep(0.1)
    finally:
        await connection.close()
