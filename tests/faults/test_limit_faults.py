"""Limits hold while schedulers and executors are killed, and nothing waits forever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import nats
import pytest

from penstock import Client
from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.run_log import from_direct
from penstock_contracts import subjects
from penstock_core.facts import AttemptFinished, CancelRequested, RunAdmitted, RunFinished, SlotGranted
from penstock_core.ports import Recorded
from penstock_testkit.servers.cluster import Cluster

PIPELINES = """
import time
from penstock import pipeline, step

@step(concurrency="gpu:2")
def train(depth: int) -> int:
    time.sleep(0.1)
    return depth * 2

@step
def total(scores: list[int]) -> int:
    return sum(scores)

@pipeline
def sweep(depths: list[int]):
    return total(train.map(depth=depths))

@step
def work(seconds: float) -> float:
    time.sleep(seconds)
    return seconds

@pipeline(max_active_runs=1, overlap="queue")
def queued(seconds: float):
    return work(seconds)

@pipeline(max_active_runs=1, overlap="cancel_previous")
def newest(seconds: float):
    return work(seconds)
"""
ITEMS = 8


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster"), replicas={"scheduler": 2, "executor": 2}) as running:
        running.source("limited.py", PIPELINES)
        yield running


def connected(cluster: Cluster, *names: str) -> Client:
    client = Client(url=cluster.url, token=cluster.token)
    for name in names:
        client.pipelines.register(f"{cluster.src / 'limited.py'}:{name}")
    return client


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("victims", [("scheduler", "scheduler-2"), ("executor", "scheduler"), ("executor-2", "nats")])
def test_three_runs_share_two_slots_despite_kills(cluster: Cluster, victims: tuple[str, ...]) -> None:
    client = connected(cluster, "sweep")
    runs = [client.run("sweep", {"depths": list(range(ITEMS))}).run_id for _ in range(3)]
    for n, victim in enumerate(victims, 1):
        until(lambda n=n: len(ends(cluster, runs)) >= 4 * n)
        cluster.kill(victim)
        cluster.restart(victim)
    assert [client.runs.wait(run_id, timeout=120).state for run_id in runs] == ["succeeded"] * 3
    assert [client.artifacts.load(run_id) for run_id in runs] == [sum(range(ITEMS)) * 2] * 3
    log = facts(cluster)
    assert 1 <= most_with_slots(log, runs) <= 2
    assert most_at_work(log, runs) <= 2
    until(lambda: not any(limit.in_use or limit.waiting for limit in client.limits.list()))


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_queued_runs_are_admitted_despite_kills(cluster: Cluster) -> None:
    client = connected(cluster, "queued")
    runs = [client.run("queued", {"seconds": 0.3}).run_id for _ in range(8)]

    def succeeded() -> int:
        return sum(client.runs.get(run_id).state == "succeeded" for run_id in runs)

    for number, victim in enumerate(("scheduler", "scheduler-2"), 1):
        until(lambda number=number: succeeded() >= 2 * number)
        cluster.kill(victim)
        cluster.restart(victim)
    assert [client.runs.wait(run_id, timeout=120).state for run_id in runs] == ["succeeded"] * len(runs)
    active: set[str] = set()
    for entry in facts(cluster):
        if isinstance(entry.fact, RunAdmitted) and entry.fact.run_id in runs:
            active.add(entry.fact.run_id)
        elif isinstance(entry.fact, RunFinished):
            active.discard(entry.fact.run_id)
        assert len(active) <= 1


@pytest.mark.slow
def test_the_newest_run_cancels_the_previous_ones(cluster: Cluster) -> None:
    client = connected(cluster, "newest")
    runs = [client.run("newest", {"seconds": 60.0 if n < 2 else 0.1}).run_id for n in range(3)]
    assert [client.runs.wait(run_id, timeout=60).state for run_id in runs] == ["cancelled", "cancelled", "succeeded"]
    cancels = [e.fact for e in facts(cluster) if isinstance(e.fact, CancelRequested) and e.fact.run_id in runs]
    assert {(cancel.run_id, cancel.by) for cancel in cancels} == {(run_id, "service:scheduler") for run_id in runs[:2]}


# ------------------------------------------------------------------------------------------------------------ helpers


def facts(cluster: Cluster) -> list[Recorded]:
    """Return the log of all runs."""

    async def read() -> list[Recorded]:
        client = await nats.connect(cluster.nats.url)
        try:
            messages = await Bus(client).read(subjects.RUNS, "runs.>")
            return [recorded for message in messages if (recorded := from_direct(message)) is not None]
        finally:
            await client.close()

    return asyncio.run(read())


def ends(cluster: Cluster, runs: list[str]) -> list[AttemptFinished]:
    return [e.fact for e in facts(cluster) if isinstance(e.fact, AttemptFinished) and e.fact.run_id in runs]


def most_with_slots(log: list[Recorded], runs: list[str]) -> int:
    """Return the number of concurrent slot holders, in the order of the log."""
    active: set[tuple[str, str, int]] = set()
    most = 0
    for fact in (entry.fact for entry in log):
        if isinstance(fact, SlotGranted) and fact.run_id in runs:
            active.add((fact.run_id, fact.key, fact.attempt))
            most = max(most, len(active))
        elif isinstance(fact, AttemptFinished):
            active.discard((fact.run_id, fact.key, fact.attempt))
    return most


def most_at_work(log: list[Recorded], runs: list[str]) -> int:
    """Return the number of concurrently running attempts, by their own clocks."""
    changes: list[tuple[float, int]] = []
    for fact in (entry.fact for entry in log):
        trained = isinstance(fact, AttemptFinished) and fact.run_id in runs and fact.key.startswith("train[")
        if trained and fact.started_at:
            changes += [(fact.started_at, 1), (fact.finished_at, -1)]
    now = most = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
