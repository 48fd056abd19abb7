"""Services, two replicas of some, and the server are killed at random points of a run; every result counts once."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest

from penstock import Client
from penstock_core.facts import AttemptFinished, Outcome
from penstock_testkit.checks import invariants
from penstock_testkit.servers.cluster import Cluster

PIPELINES = '''
import time
from penstock import pipeline, step

@step
def inc(x: int, pause: float = 0.03) -> int:
    time.sleep(pause)
    return x + 1

@step
def total(xs: list[int]) -> int:
    return sum(xs)

@pipeline
def diamond() -> int:
    """Four chains of five, joined, and five more."""
    ends = []
    for start in range(4):
        value = inc(start)
        for _ in range(4):
            value = inc(value)
        ends.append(value)
    value = total(ends)
    for _ in range(5):
        value = inc(value)
    return value
'''
EXPECTED = sum(start + 5 for start in range(4)) + 5
VICTIMS = ["scheduler", "scheduler-2", "executor", "executor-2", "artifacts", "gateway", "nats"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster"), replicas={"scheduler": 2, "executor": 2}) as running:
        running.source("kills.py", PIPELINES)
        yield running


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", range(12))
def test_a_run_survives_random_kills(cluster: Cluster, seed: int) -> None:
    client = Client(url=cluster.url, token=cluster.token)
    version = client.pipelines.register(f"{cluster.src / 'kills.py'}:diamond")
    chance = random.Random(seed)
    run_id = client.run("diamond", version=version.version).run_id
    killed: list[str] = []

    for _ in range(3):
        time.sleep(chance.uniform(0.02, 0.5))
        victim = chance.choice(VICTIMS)
        cluster.kill(victim)
        killed.append(victim)
        time.sleep(chance.uniform(0.0, 0.4))
        cluster.restart(victim)
    try:
        run = client.runs.wait(run_id, timeout=120)
    except Exception as error:
        logs = "\n".join(f"--- {name}\n{cluster.log(name, 1500)}" for name in cluster.names)
        pytest.fail(f"killed {killed}: {error!r}\n{logs}")
    assert run.state == "succeeded", f"killed {killed}: {run.error} {run.steps}"
    assert client.artifacts.load(run_id) == EXPECTED
    pipeline, recorded = cluster.history(run_id, "diamond", version.version)
    invariants.check(pipeline, [entry.fact for entry in recorded])
    good = [e.fact for e in recorded if isinstance(e.fact, AttemptFinished) and e.fact.outcome is Outcome.SUCCEEDED]
    assert len(good) == len({fact.key for fact in good}) == 26
