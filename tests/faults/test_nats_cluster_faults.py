"""Services on a NATS cluster that requires a user and password, whose servers are killed; and a server that stays away.

Services know the credentials of the first server only from its URL, and learn of servers from the cluster itself.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from penstock import Client
from penstock_core.facts import AttemptFinished, Outcome
from penstock_testkit.checks import invariants
from penstock_testkit.servers.cluster import SERVICES, Cluster
from penstock_testkit.servers.nats import NatsServer
from penstock_testkit.servers.nats_cluster import NatsCluster

PIPELINE = '''
from penstock import pipeline, step

@step
def inc(x: int) -> int:
    return x + 1

@step
def total(xs: list[int]) -> int:
    return sum(xs)

@pipeline
def chains(start: int) -> int:
    """Three chains of three, joined."""
    ends = []
    for n in range(3):
        value = start
        for _ in range(3):
            value = inc(value)
        ends.append(value)
    return total(ends)
'''
STEPS = 10
KILLS = 10


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    settings = {"PENSTOCK_REPLICAS": "3", "PENSTOCK_SLOTS": "2"}
    with Cluster(folder, env=settings, nats=NatsCluster(folder / "nats")) as running:
        running.source("chains.py", PIPELINE)
        yield running


def logs(cluster: Cluster) -> str:
    return "\n".join(f"--- {name}\n{cluster.log(name, 1500)}" for name in cluster.names)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_ten_killed_servers_of_a_cluster_with_authorization_lose_nothing(cluster: Cluster) -> None:
    assert isinstance(cluster.nats, NatsCluster)
    client = Client(url=cluster.url, token=cluster.token, patience=60)
    version = client.pipelines.register(f"{cluster.src / 'chains.py'}:chains")
    runs = {client.run("chains", {"start": -1}).run_id: -1}
    for n in range(KILLS):
        # The leader of the log of runs, and in between each server in turn: every connection is cut several times.
        victim = cluster.nats.leader("RUNS") if n % 2 else (n // 2) % 3
        runs[client.run("chains", {"start": n}).run_id] = n
        cluster.nats.kill(victim)
        runs[client.run("chains", {"start": 100 * n}, idempotency_key=f"during-{n}").run_id] = 100 * n
        cluster.nats.restart(victim)
    for run_id, start in runs.items():
        try:
            run = client.runs.wait(run_id, timeout=120)
        except Exception as error:
            pytest.fail(f"{error!r}\n{logs(cluster)}")
        assert run.state == "succeeded", f"{run.error} {run.steps}\n{logs(cluster)}"
        assert client.artifacts.load(run_id) == 3 * (start + 3)
        pipeline, recorded = cluster.history(run_id, "chains", version.version)
        invariants.check(pipeline, [entry.fact for entry in recorded])
        good = [e.fact for e in recorded if isinstance(e.fact, AttemptFinished) and e.fact.outcome is Outcome.SUCCEEDED]
        assert len(good) == len({fact.key for fact in good}) == STEPS
    assert all(cluster.alive(name) for name in cluster.names), logs(cluster)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("change", ["away", "other-password"])
def test_services_exit_when_they_cannot_reconnect(tmp_path_factory: pytest.TempPathFactory, change: str) -> None:
    folder = tmp_path_factory.mktemp("exit")
    options = "authorization { user: %s, password: %s }"
    nats = NatsServer(folder / "nats", credentials="ada:one", options=options % ("ada", "one"))
    settings = {"PENSTOCK_RECONNECT_PATIENCE": "2", "PENSTOCK_STOP_TIMEOUT": "2"}
    with Cluster(folder, env=settings, nats=nats) as cluster:
        nats.kill()
        if change == "other-password":
            changed = NatsServer(folder / "nats", credentials="ada:two", options=options % ("ada", "two"))
            changed.port = nats.port
            cluster.nats = changed
            changed.start()
        for name in SERVICES:
            assert cluster.wait_exit(name, timeout=60) == 1, cluster.log(name)
        # asyncio and uvloop word a refused connection differently.
        why = ["authorization violation"] if change == "other-password" else ["connect call failed", "refused"]
        assert "no connection to NATS for 2 s" in cluster.log("gateway")
        assert any(text in cluster.log("gateway").lower() for text in why), cluster.log("gateway")[-1000:]
