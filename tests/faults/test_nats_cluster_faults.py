"""Services and publishers on a NATS cluster with accounts, whose servers are killed; and a server that stays away.

Services know the credentials of the first server only from its URL, and learn of servers from the cluster itself.
"""

from __future__ import annotations

import asyncio
import gc
import secrets
import time
from collections.abc import Iterator
from typing import Any

import nats.errors
import nats.js.errors
import pytest
from nats.aio.client import Client as NatsClient

from penstock import Client
from penstock.client.tokens import Token
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
    nats = NatsCluster(folder / "nats")
    settings = {"PENSTOCK_REPLICAS": "3", "PENSTOCK_SLOTS": "2", "PENSTOCK_NATS_ISSUER_SEED": nats.accounts.issuer}
    with Cluster(folder, env=settings, nats=nats) as running:
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


class Publisher:
    """A system that sends events, and tries again until each is acknowledged."""

    def __init__(self, cluster: NatsCluster, token: Token) -> None:
        self._cluster = cluster
        self._token = token
        self.client: Any = None
        self.lost = 0

    async def connect(self, **options: Any) -> Publisher:
        async def disconnected() -> None:
            self.lost += 1

        async def ignored(error: Exception) -> None:
            return

        retrying = {"max_reconnect_attempts": -1, "reconnect_time_wait": 0.1}
        self.client = await nats.connect(
            self._cluster.addresses,
            token=self._token.token,
            inbox_prefix=self._token.inbox_prefix or "",
            connect_timeout=2,
            disconnected_cb=disconnected,
            error_cb=ignored,
            **(retrying | options),
        )
        return self

    async def send(self, id: str, timeout: float = 90.0) -> None:
        deadline = time.monotonic() + timeout
        while True:
            try:
                about = {"ce-id": id, "ce-source": "shop"}
                await self.client.jetstream(timeout=2).publish("events.default.com.acme.sold", b"{}", headers=about)
                return
            except (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError):
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)


# nats-py leaves the sockets of refused and killed connections to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_publishers_outlive_the_gateway_and_each_server_of_a_cluster(cluster: Cluster) -> None:
    servers = cluster.nats
    assert isinstance(servers, NatsCluster)
    admin = Client(url=cluster.url, token=cluster.token, patience=60)
    token = admin.tokens.create("shop", "publisher")
    sent: list[str] = []

    async def send(*publishers: Publisher) -> None:
        for publisher in publishers:
            sent.append(secrets.token_hex(6))
            await publisher.send(sent[-1])

    async def scenario() -> None:
        first = await Publisher(servers, token).connect()
        await send(first)
        # The gateway dies: who is connected stays connected, others wait.
        cluster.kill("gateway")
        connecting = asyncio.create_task(Publisher(servers, token).connect())
        with pytest.raises((nats.errors.Error, nats.js.errors.Error, TimeoutError)):
            await first.send("never", timeout=0)
        assert not connecting.done()
        cluster.restart("gateway")
        await asyncio.to_thread(cluster.wait_ready, "gateway")
        second = await asyncio.wait_for(connecting, 60)
        await send(first, second)
        assert first.lost == 0
        # Each server dies: its clients are admitted by another one.
        for n in range(3):
            servers.kill(n)
            await send(first, second)
            servers.restart(n)  # not in a thread: a server dies with the thread that started it
            await send(first, second)
        assert first.lost + second.lost > 0
        # A revoked token is refused by all servers.
        before = first.lost, second.lost
        await asyncio.to_thread(admin.tokens.revoke, "shop")
        deadline = time.monotonic() + 30
        while not (first.lost > before[0] and second.lost > before[1]):
            assert time.monotonic() < deadline, "a connection with a revoked token was not closed"
            await asyncio.sleep(0.05)
        for address in servers.addresses:
            refused = NatsClient()
            with pytest.raises(nats.errors.Error, match="Authorization"):
                await refused.connect(address, token=token.token, allow_reconnect=False, connect_timeout=2)
            await refused.close()
        for publisher in (first, second):
            await publisher.client.close()
        gc.collect()  # sockets of connections that were refused or killed,
        await asyncio.sleep(0.5)  # which close while the event loop still runs

    asyncio.run(scenario())
    stored = [event.id for event in admin.events.list(type="com.acme.sold", limit=100)]
    assert sorted(one for one in stored if one != "never") == sorted(sent)
    assert all(token.token not in cluster.log(name, 10**7) for name in cluster.names if token.token)
