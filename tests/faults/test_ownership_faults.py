"""A limit never has more processes than slots, also while services and the server are killed or suspended."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from penstock import Client
from penstock_testkit.servers.cluster import Cluster

PIPELINES = """
import os, signal, subprocess, sys, time
from penstock import pipeline, step

BEAT = '''
import os, sys, time
path, seconds = sys.argv[1], float(sys.argv[2])
begun = time.monotonic()
with open(path, "a") as file:
    while time.monotonic() < begun + seconds:
        file.write(f"{os.environ['GROUP']} {time.monotonic()}\\\\n")
        file.flush()
        time.sleep(0.02)
'''

def beat(path: str, seconds: float) -> None:
    os.environ["GROUP"] = str(os.getpid())
    sys.argv[1:] = [path, str(seconds)]
    exec(BEAT)

@step(concurrency="solo:1")
def alone(n: int, path: str, seconds: float) -> int:
    beat(path, seconds)
    return n

@step
def free(n: int, path: str, seconds: float) -> int:
    beat(path, seconds)
    return n

@step(concurrency="solo:1")
def stubborn(n: int, path: str, seconds: float) -> int:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    beat(path, seconds)
    return n

@step(concurrency="solo:1")
def parent(n: int, path: str, seconds: float) -> int:
    group = {**os.environ, "GROUP": str(os.getpid())}
    for _ in range(3):
        subprocess.Popen([sys.executable, "-c", BEAT, path, "60"], start_new_session=True, env=group)
    beat(path, seconds)
    return n

@pipeline
def alone_each(numbers: list[int], path: str, seconds: float):
    return alone.partial(path=path, seconds=seconds).map(n=numbers)

@pipeline
def free_each(numbers: list[int], path: str, seconds: float):
    return free.partial(path=path, seconds=seconds).map(n=numbers)

@pipeline
def parent_each(numbers: list[int], path: str, seconds: float):
    return parent.partial(path=path, seconds=seconds).map(n=numbers)

@pipeline
def never_ends(path: str, seconds: float):
    return stubborn(1, path, seconds)
"""
NAMES = ("alone_each", "free_each", "parent_each", "never_ends")
LEASE = 4.0


@dataclass(frozen=True)
class Process:
    """When a step's process, with its children, first and last wrote."""

    group: int
    start: float
    end: float


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with Cluster(folder, replicas={"executor": 2}, env={"PENSTOCK_LEASE": str(LEASE)}) as running:
        running.source("owned.py", PIPELINES)
        client = Client(url=running.url, token=running.token)
        for name in NAMES:
            client.pipelines.register(f"{running.src / 'owned.py'}:{name}")
        yield running


@pytest.fixture
def client(cluster: Cluster) -> Client:
    return Client(url=cluster.url, token=cluster.token)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("name", "items", "seconds"), [("alone_each", 5, 0.8), ("free_each", 8, 2.0)])
def test_a_server_killed_at_a_start_makes_no_second_process(
    cluster: Cluster, client: Client, tmp_path: Path, name: str, items: int, seconds: float
) -> None:
    path = tmp_path / "beats"
    run = client.run(name, {"numbers": list(range(items)), "path": str(path), "seconds": seconds})
    for number in (1, 3, 5):
        until(lambda number=number: len(processes(path)) >= number, pause=0.001)
        cluster.kill("nats")
        cluster.restart("nats")
    assert client.runs.wait(run.run_id, timeout=150).state == "succeeded"
    assert len(processes(path)) == items
    if name == "alone_each":
        assert overlaps(processes(path)) == []


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_slot_of_a_killed_executor_is_granted_again_at_once(
    cluster: Cluster, client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "beats"
    run = client.run("alone_each", {"numbers": [0, 1, 2], "path": str(path), "seconds": 1.0})
    for name in ("executor", "executor-2"):
        before = len(processes(path))
        until(lambda before=before: len(processes(path)) > before)
        cluster.kill(name)
        cluster.restart(name)
    assert client.runs.wait(run.run_id, timeout=150).state == "succeeded"
    assert overlaps(processes(path)) == []


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_stopped_executor_loses_its_slot_when_its_process_is_killed(
    cluster: Cluster, client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "beats"
    run = client.run("alone_each", {"numbers": [0], "path": str(path), "seconds": 6.0})
    until(lambda: len(processes(path)) == 1)
    stopped = owner(cluster, processes(path)[0].group)
    os.kill(cluster.pid(stopped), signal.SIGSTOP)
    try:
        until(lambda: len(processes(path)) == 2)
        first, second = processes(path)
        assert first.end < second.start < first.start + 60
    finally:
        os.kill(cluster.pid(stopped), signal.SIGCONT)
    assert client.runs.wait(run.run_id, timeout=150).state == "succeeded"
    assert overlaps(processes(path)) == []
    assert len(processes(path)) == 2


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_slot_of_a_cancelled_attempt_is_granted_when_its_process_has_ended(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "beats"
    first = client.run("never_ends", {"path": str(path), "seconds": 120.0})
    until(lambda: len(processes(path)) == 1)
    second = client.run("alone_each", {"numbers": [0], "path": str(path), "seconds": 0.1})
    client.runs.cancel(first.run_id)
    assert client.runs.wait(second.run_id, timeout=150).state == "succeeded"
    assert client.runs.wait(first.run_id, timeout=150).state == "cancelled"
    assert len(processes(path)) == 2
    assert overlaps(processes(path)) == []


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_slot_is_granted_when_the_children_of_the_process_have_ended(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "beats"
    run = client.run("parent_each", {"numbers": [0, 1, 2], "path": str(path), "seconds": 0.5})
    assert client.runs.wait(run.run_id, timeout=150).state == "succeeded"
    assert len(processes(path)) == 3
    assert overlaps(processes(path)) == []


# ------------------------------------------------------------------------------------------------------------ helpers


def owner(cluster: Cluster, pid: int) -> str:
    """Return the executor that a step's process is a descendant of."""
    executors = {cluster.pid(name): name for name in ("executor", "executor-2")}
    while pid not in executors:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return executors[pid]


def processes(path: Path) -> list[Process]:
    """Return the processes that wrote to the file, in the order of their starts."""
    found: dict[int, Process] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        group, at = line.split()
        start = found[int(group)].start if int(group) in found else float(at)
        found[int(group)] = Process(int(group), start, float(at))
    return list(found.values())


def overlaps(found: list[Process]) -> list[tuple[Process, Process]]:
    """Return consecutive processes of which the second started before the first had ended."""
    return [(one, other) for one, other in itertools.pairwise(found) if other.start < one.end]


def until(condition: Callable[[], bool], pause: float = 0.05) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(pause)
