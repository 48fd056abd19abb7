"""Services are replaced one at a time by those of another commit, forth and back, while runs start and go on."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock import Client
from penstock.errors import PenstockError
from penstock_testkit.checks import invariants
from penstock_testkit.servers.cluster import Cluster

ROOT = Path(__file__).parents[2]
EARLIER = os.environ.get("PENSTOCK_UPGRADE_FROM", "HEAD~1")
"""The commit that services are upgraded from."""

PIPELINES = """
import time
from pathlib import Path

from penstock import Resources, ask, context, pipeline, sleep, step

@step(retries=2, retry_delay="0.05s")
def shaky(x: int) -> int:
    if x % 3 == 0 and context().attempt == 1:
        raise ValueError("not yet")
    return x + 1

@step
def slow(x: int) -> int:
    time.sleep(0.3)
    return x

@step(concurrency="solo:1")
def alone(x: int) -> int:
    context().log_metric("x", x)
    return x

@step
def total(xs: list[int]) -> int:
    return sum(xs)

@pipeline
def work(start: int) -> int:
    value = total(shaky.map([start, 1, 2, 3]))
    value = alone(slow(value))
    return total([value, slow(start).after(sleep("1s"))])

@pipeline
def gated(x: int) -> int:
    return total([x, shaky(x).after(ask("Go on?", name="go"))])
"""
REPLICAS = {"scheduler": 2, "executor": 2}


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment variables with which a service runs the code of the earlier commit."""
    found = subprocess.run(["git", "archive", EARLIER], cwd=ROOT, capture_output=True, check=False)
    if found.returncode:
        pytest.skip(f"the earlier commit {EARLIER} cannot be read: {found.stderr.decode().strip()}")
    folder = tmp_path_factory.mktemp("earlier")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=found.stdout, check=True)
    packages = sorted(path.parent.parent for path in folder.glob("*/*/penstock*/__init__.py"))
    assert len(packages) > 10, packages
    env = {"PYTHONPATH": os.pathsep.join(map(str, packages))}
    for module in ("penstock_gateway", "penstock_executor", "penstock.runner"):
        command = [sys.executable, "-c", f"import {module}; print({module}.__file__)"]
        path = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
        assert path.startswith(str(folder)), path
    return env


@pytest.fixture
def cluster(tmp_path: Path, earlier: dict[str, str]) -> Iterator[Cluster]:
    with Cluster(tmp_path, replicas=REPLICAS, env=earlier) as running:
        running.source("upgraded.py", PIPELINES)
        yield running


def start(client: Client, number: int) -> str:
    """Start a run; a gateway that is just being replaced is asked again with the same idempotency key."""
    key, deadline = uuid.uuid4().hex, time.monotonic() + 60
    while True:
        try:
            return client.run("work", {"start": number}, idempotency_key=key).run_id
        except PenstockError:
            assert time.monotonic() < deadline, "the gateway does not answer"
            time.sleep(0.1)


def expected(start: int) -> int:
    return start + 1 + 2 + 3 + 4 + start


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_runs_go_on_while_services_are_upgraded_and_downgraded(cluster: Cluster, earlier: dict[str, str]) -> None:
    client = Client(url=cluster.url, token=cluster.token)
    for name in ("work", "gated"):
        client.pipelines.register(f"{cluster.src / 'upgraded.py'}:{name}")
    waiting = client.run("gated", {"x": 5})
    runs: dict[str, int] = {}
    stop = threading.Event()

    def keep_starting() -> None:
        while not stop.is_set():
            runs[start(client, len(runs))] = len(runs)
            stop.wait(0.5)

    starter = threading.Thread(target=keep_starting)
    starter.start()
    try:
        for name in cluster.names:
            cluster.replace(name, {})
        seen = len(runs)
        # Back again for one of two: old and new replicas work side by side.
        for name in ("scheduler", "executor-2"):
            cluster.replace(name, earlier)
        while len(runs) < seen + 3:
            assert starter.is_alive()
            time.sleep(0.1)
    finally:
        stop.set()
        starter.join()
    client.questions.answer(waiting.run_id, "go", "yes")
    for run_id, number in runs.items():
        ended = client.runs.wait(run_id, timeout=120)
        assert ended.state == "succeeded", (run_id, ended.error)
        assert client.artifacts.load(run_id) == expected(number)
        pipeline, recorded = cluster.history(run_id, "work", 1)
        invariants.check(pipeline, [entry.fact for entry in recorded])
    assert client.runs.wait(waiting.run_id, timeout=60).state == "succeeded"
    assert Counter(run.state for run in client.runs.list(limit=1000)) == {"succeeded": len(runs) + 1}
