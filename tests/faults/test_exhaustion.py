"""A machine that is really out of descriptors or disk space delays runs: shortages are never a failure of the step."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock import Client
from penstock_core.exhaustion import OUT_OF_RESOURCES
from penstock_testkit.servers.cluster import Cluster

from .test_standalone_faults import fill, small_disk

PIPELINE = """
from penstock import pipeline, step

@step
def small(n: int) -> int:
    return n + 1

@step
def large(n: int) -> bytes:
    return bytes([n]) * 2_000_000

@pipeline
def adding(n: int) -> int:
    return small(n)

@pipeline
def storing(n: int) -> bytes:
    return large(n)
"""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with small_disk(tmp_path_factory.mktemp("exhaustion") / "disk", 64) as folder:
        yield folder


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, disk: Path) -> Iterator[Cluster]:
    env = {"PENSTOCK_ARTIFACTS_URL": f"folder:{disk / 'artifacts'}"}
    with Cluster(tmp_path_factory.mktemp("cluster"), env=env) as running:
        running.source("tight.py", PIPELINE)
        yield running


@pytest.fixture(scope="module")
def client(cluster: Cluster) -> Client:
    client = Client(url=cluster.url, token=cluster.token)
    for name in ("adding", "storing"):
        client.pipelines.register(f"{cluster.src / 'tight.py'}:{name}")
    assert client.artifacts.load(client.run("adding", {"n": 1}, wait=True).run_id) == 2
    return client


def until(condition: Callable[[], bool], cluster: Cluster, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, cluster.log("executor")
        time.sleep(0.05)


def ends(client: Client, run_id: str) -> list[dict[str, Any]]:
    """The ends of attempts of a run so far."""
    last = client.runs.get(run_id).last_seq
    return [event.data for event in client.runs.events(run_id, until=last) if event.kind == "attempt.finished"]


def are_shortages(found: list[dict[str, Any]]) -> bool:
    return bool(found) and all((one["outcome"], one["error"]["type"]) == ("lost", OUT_OF_RESOURCES) for one in found)


def refusals(cluster: Cluster) -> int:
    """How often an attempt was handed back because the machine was out of something."""
    return cluster.log("executor", 1_000_000).count("out of resources")


@pytest.mark.parametrize("left", [0, 1, 2, 3, 4, 6, 8])
def test_an_executor_with_few_descriptors_left(cluster: Cluster, client: Client, left: int) -> None:
    # Another module needs another fork server of the executor, so that it opens files, sockets and processes.
    cluster.source(f"few_{left}.py", PIPELINE)
    client.pipelines.register(f"{cluster.src / f'few_{left}.py'}:adding")
    pid = cluster.pid("executor")
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = {int(fd.name) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    free = sorted({*range(len(used) + left + 1)} - used)
    seen = refusals(cluster)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free[left], before[1]))
    try:
        run = client.run("adding", {"n": left})
        until(
            lambda: refusals(cluster) > seen + 1 or client.runs.get(run.run_id).finished,
            cluster,
        )
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    assert client.runs.wait(run.run_id, timeout=90).state == "succeeded", ends(client, run.run_id)
    assert client.artifacts.load(run.run_id) == left + 1
    assert left or refusals(cluster) > seen


def test_a_full_disk_of_artifacts(cluster: Cluster, client: Client, disk: Path) -> None:
    ballast = fill(disk)
    run = client.run("storing", {"n": 3})
    until(lambda: are_shortages(ends(client, run.run_id)), cluster)
    assert client.runs.get(run.run_id).state == "running"
    ballast.unlink()
    assert client.runs.wait(run.run_id, timeout=90).state == "succeeded"
    assert client.artifacts.load(run.run_id) == b"\3" * 2_000_000
