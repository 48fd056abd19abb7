"""The janitor is killed in the middle of its rounds while runs write: nothing retained is lost."""

from __future__ import annotations

import asyncio
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.msg import Msg

from penstock import Client
from penstock.client.views import Run
from penstock_adapters.nats.bus import Bus
from penstock_contracts import subjects
from penstock_testkit.servers.cluster import Cluster

CONTENTS = 12
PIPELINES = (
    f"""
CONTENTS = {CONTENTS}
"""
    + """
from pathlib import Path

from penstock import pipeline, step

@step
def make(seed: int) -> bytes:
    # Few contents, which many runs share: what one run lets go, the next one finds there.
    return bytes([seed % CONTENTS]) * 300_000

@step
def folder(data: bytes) -> Path:
    out = Path("out")
    out.mkdir()
    (out / "large").write_bytes(data)
    (out / "small").write_bytes(data[:10])
    return out

@step
def count(parts: Path) -> int:
    return (parts / "large").stat().st_size

@pipeline
def shared(seed: int):
    return count(folder(make(seed)))
"""
)

ROUNDS = {"PENSTOCK_JANITOR_INTERVAL": "0.2", "PENSTOCK_JANITOR_FIRST": "0.1", "PENSTOCK_GC_GRACE": "1.5"}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path / "cluster", env=ROUNDS) as running:
        running.source("shared.py", PIPELINES)
        yield running


def client_of(cluster: Cluster) -> Client:
    client = Client(url=cluster.url, token=cluster.token)
    client.pipelines.register(f"{cluster.src / 'shared.py'}:shared")
    return client


@contextmanager
def killing(cluster: Cluster, seed: int) -> Iterator[Callable[[], int]]:
    """Kill -9 the artifacts service at random moments, and restart it."""
    dice, over, kills = random.Random(seed), threading.Event(), 0

    def kill() -> None:
        nonlocal kills
        while not over.wait(dice.uniform(0.05, 0.8)):
            cluster.kill("artifacts")
            kills += 1
            cluster.restart("artifacts")
            cluster.wait_ready("artifacts", 60)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield lambda: kills
    finally:
        over.set()
        thread.join(120)
        # Child processes exit with the thread that started them: the last one is started here.
        cluster.kill("artifacts")
        cluster.restart("artifacts")
        cluster.wait_ready("artifacts", 60)


def until(condition: Callable[[], Any], seconds: float = 120.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.1)
    return found


@pytest.mark.timeout(500)
def test_a_janitor_killed_between_archive_and_purge_loses_nothing(cluster: Cluster, tmp_path: Path) -> None:
    client = client_of(cluster)
    client.retention.archive_after(None)
    runs = [client.run("shared", {"seed": seed}) for seed in range(12)]
    for run in runs:
        assert client.runs.wait(run.run_id, timeout=100).succeeded
    before = {run.run_id: client.runs.export(run.run_id, tmp_path / run.run_id).read_bytes() for run in runs}
    seen = {run.run_id: client.runs.get(run.run_id) for run in runs}

    def archived(run: Run) -> bool:
        return "run.archived" in kinds(cluster, run.run_id)

    with killing(cluster, 1) as kills:
        client.retention.archive_after(0)
        until(lambda: all(map(archived, runs)) and kills() >= 3, 200)
    # The next janitor completes the work of a killed one.
    until(lambda: all(len(kinds(cluster, run.run_id)) == 3 for run in runs))
    for run in runs:
        assert client.runs.export(run.run_id, tmp_path / f"{run.run_id}-after").read_bytes() == before[run.run_id]
        assert client.runs.get(run.run_id) == seen[run.run_id]


@pytest.mark.timeout(500)
def test_referenced_artifacts_are_never_swept_despite_writes_and_kills(cluster: Cluster) -> None:
    client = client_of(cluster)
    client.retention.archive_after(0)
    client.retention.set("few", keep_last=2, confirm=True)
    dice = random.Random(7)
    kept: list[Run] = []
    with killing(cluster, 2) as kills:
        while kills() < 12 or removed(cluster) < 12:
            asked = [client.run("shared", {"seed": dice.randrange(CONTENTS)}) for _ in range(2)]
            kept = [client.runs.wait(run.run_id, timeout=120) for run in asked]
            assert all(run.succeeded for run in kept), [run.error for run in kept]
            time.sleep(dice.uniform(0, 0.6))  # objects are removed while no attempt runs
    until(lambda: len(client.runs.list("shared")) == 2)
    report = client.retention.collect_garbage()
    assert report.state == "finished" and not report.problems
    for run in kept:
        for step in ("make", "folder"):
            target = cluster.home.parent / f"{run.run_id}-{step}"
            client.artifacts.download(run.run_id, step=step, to=target)
        assert (cluster.home.parent / f"{run.run_id}-folder" / "large").stat().st_size == 300_000

    # Everything else is deleted eventually.
    until(lambda: client.retention.collect_garbage().unreferenced["objects"] == 0)


def removed(cluster: Cluster) -> int:
    """Count the objects that rounds removed, as logged by those that were not killed."""
    return sum(map(int, re.findall(r'"removed":(\d+)', cluster.log("artifacts", 10**8))))


def kinds(cluster: Cluster, run_id: str) -> list[str]:
    """Return the facts of a run in the log."""

    async def read() -> list[Msg]:
        connection = await nats.connect(cluster.nats.url)
        try:
            return await Bus(connection).read(subjects.RUNS, subjects.run_all(run_id))
        finally:
            await connection.close()

    places = [subjects.parse((message.headers or {})["Nats-Subject"]) for message in asyncio.run(read())]
    return [place.kind for place in places if place is not None]
