"""Four schedulers and four executors on one bus, killed at random with the server: every run finishes."""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from penstock import Client
from penstock_core import ids
from penstock_core.facts import SUCCESSFUL, AttemptFinished
from penstock_testkit.checks import invariants
from penstock_testkit.servers.cluster import Cluster
from penstock_testkit.servers.processes import gone, processes_with

PIPELINES = '''
import time
from penstock import context, pipeline, step

@step(retries=2, retry_delay="0.05s")
def shaky(x: int) -> int:
    """Fails at first, every third time."""
    time.sleep(0.03)
    if x % 3 == 0 and context().attempt == 1:
        raise ValueError("not yet")
    return x + 1

@step
def total(xs: list[int]) -> int:
    return sum(xs)

@pipeline
def tangle(start: int) -> int:
    """Six chains of two, joined, and a chain of four."""
    value = total([shaky(shaky(x)) for x in [start, 1, 2, 3, 4, 5]])
    for _ in range(4):
        value = shaky(value)
    return value

@step
def rest(x: int) -> int:
    time.sleep(0.1)
    return x

@pipeline
def wide() -> int:
    return total([rest(x) for x in range(64)])
'''
SCHEDULERS = ["scheduler", "scheduler-2", "scheduler-3", "scheduler-4"]
EXECUTORS = ["executor", "executor-2", "executor-3", "executor-4"]
STEPS = 17
SLOTS = 2
RUNS = 8
KILLS = 8


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("replicas")
    with Cluster(folder, replicas={"scheduler": 4, "executor": 4}, env={"PENSTOCK_SLOTS": str(SLOTS)}) as running:
        running.source("replicas.py", PIPELINES)
        yield running
    assert not [pid for pid in processes_with(str(folder)) if not gone(pid)], "something outlived the cluster"


@pytest.fixture(scope="module")
def client(cluster: Cluster) -> Client:
    client = Client(url=cluster.url, token=cluster.token)
    for pipeline in ("tangle", "wide"):
        client.pipelines.register(f"{cluster.src / 'replicas.py'}:{pipeline}")
    return client


def held_shards(cluster: Cluster) -> dict[str, set[int]]:
    """Return the shards of each responding scheduler, by the name of its current incarnation."""
    reports = [cluster.about("scheduler", name) for name in SCHEDULERS if cluster.alive(name)]
    return {about["replica"]: set(about["shards"]) for about in reports if about}


def shared(cluster: Cluster, replicas: int) -> bool:
    """Whether so many schedulers hold each shard exactly once, in equal shares."""
    shards = list(held_shards(cluster).values())
    sizes = [len(some) for some in shards]
    whole = set().union(*shards) == set(range(ids.SHARDS)) and sum(sizes) == ids.SHARDS
    return len(shards) == replicas and whole and max(sizes) - min(sizes) <= 1


def until(cluster: Cluster, condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{held_shards(cluster)}\n{logs(cluster)}"
        time.sleep(0.05)


def logs(cluster: Cluster) -> str:
    return "\n".join(f"--- {name}\n{cluster.log(name, 1500)}" for name in cluster.names)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_executors_of_a_pool_share_attempts_by_free_slots(cluster: Cluster, client: Client) -> None:
    run = client.run("wide")
    assert client.runs.wait(run.run_id, timeout=90).state == "succeeded", logs(cluster)
    _, recorded = cluster.history(run.run_id, "wide", run.version)
    ends = [entry.fact for entry in recorded if isinstance(entry.fact, AttemptFinished)]
    load = Counter(end.executor for end in ends if end.key != "total")
    assert sum(load.values()) == 64
    # A fair share is 16. On a busy machine shares differ; every executor gets some attempts, none gets all.
    assert len(load) == 4 and min(load.values()) >= 5 and max(load.values()) <= 32, load
    for executor in load:
        times = [(end.started_at, end.finished_at) for end in ends if end.executor == executor]
        edges = sorted([(end, -1) for _, end in times] + [(start, 1) for start, _ in times])
        at_once = max(itertools.accumulate(change for _, change in edges))
        assert at_once <= SLOTS, f"{executor} ran {at_once} at the same time"


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_shards_of_a_killed_scheduler_are_reassigned(cluster: Cluster, client: Client) -> None:
    until(cluster, lambda: shared(cluster, 4))
    before = held_shards(cluster)
    cluster.kill("scheduler-3")
    run = client.run("tangle", {"start": 0})
    until(cluster, lambda: shared(cluster, 3))
    lost = set(range(ids.SHARDS)) - set().union(*(before[name] for name in held_shards(cluster)))
    assert len(lost) == ids.SHARDS // len(before)
    assert client.runs.wait(run.run_id, timeout=90).state == "succeeded", logs(cluster)
    cluster.restart("scheduler-3")
    until(cluster, lambda: shared(cluster, 4))
    assert len(held_shards(cluster).keys() - before.keys()) == 1


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", range(4))
def test_all_runs_finish_despite_kills(cluster: Cluster, client: Client, seed: int) -> None:
    chance = random.Random(seed)
    until(cluster, lambda: shared(cluster, 4))
    runs = [client.run("tangle", {"start": start}) for start in range(RUNS)]
    killed: list[str] = []
    for n in range(KILLS):
        # Each kind dies at least twice; the order and the moments are left to chance.
        victim = (chance.choice(SCHEDULERS), chance.choice(EXECUTORS), "nats", chance.choice(cluster.names))[n % 4]
        time.sleep(chance.uniform(0.0, 0.6))
        if victim in ("gateway", "builder", "artifacts", "cron"):
            victim = chance.choice(SCHEDULERS)
        cluster.kill(victim)
        killed.append(victim)
        time.sleep(chance.uniform(0.0, 0.6))
        cluster.restart(victim)
    for start, run in enumerate(runs):
        try:
            end = client.runs.wait(run.run_id, timeout=90)
        except Exception as error:
            pytest.fail(f"killed {killed}: {error!r}\n{logs(cluster)}")
        assert end.state == "succeeded", f"killed {killed}: {end.error} {end.steps}"
        assert client.artifacts.load(run.run_id) == sum(x + 2 for x in [start, 1, 2, 3, 4, 5]) + 4
        pipeline, recorded = cluster.history(run.run_id, "tangle", run.version)
        invariants.check(pipeline, [entry.fact for entry in recorded])
        good = [e.fact for e in recorded if isinstance(e.fact, AttemptFinished) and e.fact.outcome in SUCCESSFUL]
        assert len(good) == len({fact.key for fact in good}) == STEPS
    until(cluster, lambda: shared(cluster, 4))
