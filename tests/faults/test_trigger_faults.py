"""Every acknowledged event has one decision and one run, while the services that handle it are killed."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

import nats
import pytest

from penstock import Client
from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.decision_log import DecisionLog
from penstock_adapters.nats.event_stream import EventStream
from penstock_core.deployments.decisions import Outcome
from penstock_testkit.servers.cluster import Cluster

FLOWS = """
from pathlib import Path

from penstock import pipeline, step

@step
def double(n: int) -> int:
    return n * 2

@pipeline
def doubling(n: int):
    return double(n)

@step
def total(numbers: list[int]) -> int:
    return sum(numbers)

@pipeline
def totals(numbers: list[int]):
    return total(numbers)

@step
def name(key: str) -> str:
    return key

@pipeline
def keyed(key: str):
    return name(key)

@step
def watch(n: int, folder: str) -> int:
    mine = Path(folder) / f"run-{n}"
    mine.touch()
    (Path(folder) / f"seen-{n}").write_text(str(len([*Path(folder).glob("run-*")])))
    mine.unlink()
    return n

@pipeline
def watched(n: int, folder: str):
    return watch(n, folder)

@step
def fail(n: int) -> int:
    raise ValueError(n)

@pipeline
def failing(n: int):
    return fail(n)
"""
EVENTS = 60
ITEMS = 60
BURST = 30
HOOK_SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
T = TypeVar("T")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    env = {"PENSTOCK_SECRET_HOOK": HOOK_SECRET, "PENSTOCK_NOTIFY_NETWORKS": "127.0.0.0/8"}
    with Cluster(folder, replicas={"triggers": 2, "scheduler": 2, "cron": 2}, env=env) as running:
        running.source("flows.py", FLOWS)
        yield running


def deployed(cluster: Cluster) -> Client:
    client = Client(url=cluster.url, token=cluster.token)
    for name in ("doubling", "totals"):
        client.pipelines.register(f"{cluster.src / 'flows.py'}:{name}")
    every = {"kind": "event", "name": "on", "types": ["com.acme.number"], "inputs": {"n": "data.n"}}
    client.deployments.apply("each", {"pipeline": "doubling", "triggers": [every]})
    window = {"kind": "batch", "seconds": 4, "count": 7}
    mapping = {"numbers": "events.map(e, e.data.n)"}
    batches = {**every, "window": window, "key": "data.n % 2", "inputs": mapping}
    client.deployments.apply("batches", {"pipeline": "totals", "triggers": [batches]})
    broken = {**every, "filter": "data.unknown > 1"}
    client.deployments.apply("broken", {"pipeline": "doubling", "triggers": [broken]})
    return client


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_events_start_each_run_once_despite_kills(cluster: Cluster) -> None:
    client = deployed(cluster)
    chance = random.Random(7)
    victims = ["triggers", "triggers-2", "scheduler", "gateway", "executor", "nats"]
    chance.shuffle(victims)
    digests: list[str] = []
    for n in range(EVENTS):
        if n % 10 == 5 and victims:
            victim = victims.pop()
            cluster.kill(victim)
            cluster.restart(victim)
        receipt = persistent(
            lambda n=n: client.events.send("com.acme.number", {"n": n}, id=str(n), source="numbers")  # type: ignore[misc]
        )
        digests.append(receipt.digest)

    def numbers() -> list[int]:
        runs = [run for run in client.runs.list("totals", limit=500) if run.trigger.get("deployment") == "batches"]
        inputs = [client.runs.get(run.run_id).inputs["numbers"] for run in runs]
        return sorted(n for value in inputs for n in value["value"])

    until(lambda: numbers() == [*range(EVENTS)], numbers)
    runs = [run for run in client.runs.list("doubling", limit=500) if run.trigger.get("deployment") == "each"]
    assert Counter(run.trigger["event_id"] for run in runs) == Counter(str(n) for n in range(EVENTS))
    for run in runs:
        assert client.runs.wait(run.run_id, timeout=90).state == "succeeded"
        assert client.artifacts.load(run.run_id) == 2 * int(run.trigger["event_id"])

    async def decided(bus: Bus) -> list[list[Any]]:
        return [await DecisionLog(bus, "test").decided("default", digest) for digest in digests]

    for found in on_bus(cluster, decided):
        assert Counter(one.deployment for one in found) == {"each": 1, "batches": 1, "broken": 1}
        outcomes = {one.deployment: one.outcome for one in found}
        assert outcomes == {"each": Outcome.STARTED, "batches": Outcome.COLLECTED, "broken": Outcome.REJECTED}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_tick_is_one_event_and_one_run_despite_kills(cluster: Cluster) -> None:
    client = deployed(cluster)
    trigger = {"kind": "cron", "name": "c", "every": 1, "catchup": "all"}
    client.deployments.apply("often", {"pipeline": "doubling", "triggers": [trigger], "inputs": {"n": 1}})

    async def ticks(bus: Bus) -> list[str]:
        found = await EventStream(bus).since("default", "penstock.cron.tick.v1", 0.0)
        return [event.id for event in found if event.subject == "often/c"]

    for victim in ("cron", "triggers", "cron-2", "nats"):
        seen = len(on_bus(cluster, ticks))
        until(lambda seen=seen: len(on_bus(cluster, ticks)) > seen, lambda: "no tick")  # type: ignore[misc]
        cluster.kill(victim)
        cluster.restart(victim)
    seen = len(on_bus(cluster, ticks))
    until(lambda: len(on_bus(cluster, ticks)) > seen, lambda: "no tick")
    client.deployments.delete("often")
    times = sorted(float(id.rpartition("/")[2]) for id in set(on_bus(cluster, ticks)))
    assert times == [times[0] + n for n in range(len(times))], "no tick is missing"

    def started() -> list[str]:
        runs = client.runs.list("doubling", limit=500)
        return sorted(run.trigger["event_id"] for run in runs if run.trigger.get("deployment") == "often")

    expected = sorted(set(on_bus(cluster, ticks)))
    until(lambda: len(started()) >= len(expected) - 1, started)
    assert len(started()) == len(set(started()))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_burst_that_reaches_the_limit_of_active_runs_loses_no_event(cluster: Cluster) -> None:
    """Events queue as runs while schedulers and triggers are killed; all of them run, at most two at a time."""
    client = deployed(cluster)
    client.pipelines.register(f"{cluster.src / 'flows.py'}:watched")
    trigger = {"kind": "event", "name": "on", "types": ["com.acme.burst"], "inputs": {"n": "data.n"}}
    folder = cluster.src.parent / "active"
    folder.mkdir()
    definition = {"pipeline": "watched", "triggers": [trigger], "inputs": {"folder": str(folder)}}
    client.deployments.apply("limited", {**definition, "max_active_runs": 2})
    for n in range(BURST):
        persistent(lambda n=n: client.events.send("com.acme.burst", {"n": n}, id=str(n), source="burst"))  # type: ignore[misc]

    def ended() -> set[str]:
        found = client.runs.list("watched", state="succeeded", limit=500)
        return {run.trigger["event_id"] for run in found}

    for victim in ("scheduler", "triggers", "scheduler-2", "nats", "scheduler"):
        seen = len(ended())
        until(lambda seen=seen: len(ended()) > seen or len(ended()) == BURST, ended)  # type: ignore[misc]
        cluster.kill(victim)
        cluster.restart(victim)
    until(lambda: ended() == {str(n) for n in range(BURST)}, ended)
    assert max(int(file.read_text()) for file in folder.glob("seen-*")) <= 2


@contextlib.contextmanager
def receiver(received: list[tuple[str, str]]) -> Iterator[int]:
    """A server that refuses every third request, and records run and id of the others."""
    count = iter(range(10_000))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            accepted = next(count) % 3 > 0
            if accepted:
                received.append((body["data"]["run"], self.headers["webhook-id"]))
            self.send_response(204 if accepted else 503)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_failed_run_is_notified_despite_kills(cluster: Cluster) -> None:
    client = deployed(cluster)
    client.pipelines.register(f"{cluster.src / 'flows.py'}:failing")
    received: list[tuple[str, str]] = []
    with receiver(received) as port:
        url = f"http://127.0.0.1:{port}/"
        rule = {"name": "hook", "kind": "webhook", "url": url, "secret": "secret:hook", "throttle": 0}
        trigger = {"kind": "event", "name": "on", "types": ["com.acme.fail"], "inputs": {"n": "data.n"}}
        client.deployments.apply("notifying", {"pipeline": "failing", "triggers": [trigger], "notify": [rule]})
        for n in range(24):
            if n % 6 == 5:
                victim = "nats" if n == 11 else "gateway"
                cluster.kill(victim)
                cluster.restart(victim)
            # The events of the other tests have other sources: with the same source and id they are duplicates.
            persistent(lambda n=n: client.events.send("com.acme.fail", {"n": n}, id=str(n), source="failures"))  # type: ignore[misc]

        def runs() -> set[str]:
            found = client.runs.list("failing", limit=500)
            return {run.run_id for run in found if run.trigger.get("deployment") == "notifying"}

        until(lambda: len(runs()) == 24 and {run for run, _ in received} == runs(), lambda: (len(runs()), received))
    ids: dict[str, set[str]] = {}
    for run, id in received:
        ids.setdefault(run, set()).add(id)
    assert all(len(found) == 1 for found in ids.values()), "a repeated notification has the id of the first one"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_each_item_of_a_backfill_runs_once_despite_kills(cluster: Cluster) -> None:
    client = deployed(cluster)
    partitions = {"by": "static", "keys": [f"k{n}" for n in range(ITEMS)], "inputs": {"key": "key"}}
    client.pipelines.register(f"{cluster.src / 'flows.py'}:keyed")
    client.deployments.apply("keys", {"pipeline": "keyed", "partitions": partitions})
    backfill = persistent(lambda: client.backfills.start("keys", all=True, max_active=4, idempotency_key="once"))

    def finished() -> int:
        return persistent(lambda: client.backfills.get(backfill.id)).finished

    for victim in ("triggers", "scheduler", "triggers-2", "nats", "executor", "triggers", "gateway", "triggers-2"):
        seen = finished()
        until(lambda seen=seen: finished() > min(seen + 2, ITEMS - 1), finished)  # type: ignore[misc]
        cluster.kill(victim)
        cluster.restart(victim)
        again = persistent(lambda: client.backfills.start("keys", all=True, max_active=4, idempotency_key="once"))
        assert again.id == backfill.id
    until(lambda: finished() == ITEMS, finished)
    ended = client.backfills.get(backfill.id)
    assert (ended.status, ended.counts["succeeded"]) == ("succeeded", ITEMS)
    runs = client.runs.list("keyed", limit=500)
    assert Counter(run.labels["partition"] for run in runs) == dict.fromkeys(partitions["keys"], 1)
    assert {run.run_id for run in runs} == {item.run_id for item in client.backfills.items(backfill.id)}


def on_bus(cluster: Cluster, work: Callable[[Bus], Coroutine[Any, Any, T]]) -> T:
    async def run() -> T:
        client = await nats.connect(cluster.nats.url)
        try:
            return await work(Bus(client))
        finally:
            await client.close()

    return asyncio.run(run())


def persistent(send: Callable[[], T]) -> T:
    """Send again until it is acknowledged, as a sender does."""
    deadline = time.monotonic() + 90
    while True:
        try:
            return send()
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def until(condition: Callable[[], bool], shown: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, shown()
        time.sleep(0.1)
