"""Low-latency endpoints while services are killed or stopped: every request gets an answer, and runs are recorded."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

from penstock import Client
from penstock_testkit.servers.cluster import Cluster

T = TypeVar("T")

FLOWS = """
import os
import time
from collections.abc import Iterator
from penstock import Batch, pipeline, step

@step
def double(n: int, pause: float) -> int:
    time.sleep(pause)
    return n * 2

@step
def located(n: int) -> dict[str, int]:
    return {"n": n, "pid": os.getpid()}

@pipeline
def doubling(n: int, pause: float = 0.0):
    return located(double(n, pause))

@step(batch=Batch(max=4, wait="5ms"))
def together(numbers: list[int]) -> list[dict[str, int]]:
    time.sleep(0.02)
    return [{"n": 2 * n, "pid": os.getpid(), "size": len(numbers)} for n in numbers]

@pipeline
def batching(n: int):
    return together(n)

@step
def counted(n: int) -> Iterator[dict[str, int]]:
    for i in range(n):
        time.sleep(0.005)
        yield {"n": i, "pid": os.getpid()}

@pipeline
def counting(n: int):
    return counted(n)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as running:
        running.source("flows.py", FLOWS)
        yield running


def deployed(
    cluster: Cluster, name: str, pipeline: str = "doubling", shares: dict[str, Any] | None = None, **options: Any
) -> Client:
    client = Client(url=cluster.url, token=cluster.token, patience=120)
    client.pipelines.register(f"{cluster.src / 'flows.py'}:{pipeline}")
    trigger = {"kind": "endpoint", "name": "endpoint", **options}
    definition = {"pipeline": pipeline, "mode": "low_latency", "triggers": [trigger], **(shares or {})}
    client.deployments.apply(name, definition)
    return client


def post(cluster: Cluster, name: str, body: dict[str, Any]) -> tuple[int, Any, str]:
    """Send a request once; return status, answer and run."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(cluster.url).netloc, timeout=60)
    try:
        headers = {"content-type": "application/json", "authorization": f"Bearer {cluster.token}"}
        connection.request("POST", f"/v1/endpoints/default/{name}", json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read() or b"null"), response.getheader("penstock-run", "")
    finally:
        connection.close()


def until(look: Callable[[], T], within: float = 100.0) -> T:
    """Poll `look` until it returns something."""
    deadline = time.monotonic() + within
    while not (found := look()):
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.05)
    return found


def answered(cluster: Cluster, name: str) -> bool:
    """Whether a request is answered now."""
    try:
        return post(cluster, name, {"n": 1})[0] == 200
    except (OSError, http.client.HTTPException):
        return False


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_workers_cost_their_own_requests_only(cluster: Cluster) -> None:
    deployed(cluster, "workers", min_workers=2, max_workers=2)
    statuses: Counter[int] = Counter()
    problems: list[str] = []
    stop = threading.Event()
    pids: set[int] = set()

    def call(n: int) -> None:
        while not stop.is_set():
            status, answer, _ = post(cluster, "workers", {"n": n, "pause": 0.02})
            statuses[status] += 1
            if status == 200:
                assert answer["n"] == 2 * n
                pids.add(answer["pid"])
            else:
                problems.append(answer["detail"])

    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(call, n) for n in range(4)]
        killed: set[int] = set()
        for _ in range(5):
            victim = until(lambda: next(iter(pids - killed), None))
            os.kill(victim, signal.SIGKILL)
            killed.add(victim)
            before = statuses[200]
            until(lambda before=before: statuses[200] >= before + 5)
        stop.set()
        for one in calls:
            one.result(60)
    assert set(statuses) <= {200, 503}
    assert statuses[503] <= 5, problems
    assert all("killed by signal 9" in text for text in problems)


def stream(cluster: Cluster, name: str, n: int) -> tuple[int, list[Any], dict[str, Any]]:
    """Read a stream to its end; return the status, its items, and the problem or the end."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(cluster.url).netloc, timeout=60)
    try:
        headers = {"content-type": "application/json", "authorization": f"Bearer {cluster.token}"}
        body, accept = json.dumps({"n": n}), {"accept": "application/x-ndjson"}
        connection.request("POST", f"/v1/endpoints/default/{name}", body, headers | accept)
        response = connection.getresponse()
        if response.status != 200:
            return response.status, [], json.loads(response.read())
        lines = [json.loads(line) for line in response.read().splitlines()]
        return 200, [line["item"] for line in lines[:-1]], lines[-1]
    finally:
        connection.close()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_kills_cost_nothing_else_with_batches_streams_canaries_and_updates(cluster: Cluster) -> None:
    deployed(cluster, "batches", "batching", min_workers=2, max_workers=2)
    deployed(cluster, "streams", "counting", min_workers=2, max_workers=2)
    source = cluster.src / "flows.py"
    publish = Client(url=cluster.url, token=cluster.token).pipelines.register
    own = publish(f"{source}:doubling").version
    source.write_text(FLOWS.replace("return n * 2", "return n * 2 + 0"))
    share = {"version": own, "canary": {"version": publish(f"{source}:doubling").version, "weight": 0.5}}
    deployed(cluster, "canary", shares=share, min_workers=1, max_workers=1)
    pids: dict[str, set[int]] = {"batches": set(), "streams": set(), "canary": set()}
    good: Counter[str] = Counter()
    refused: list[tuple[str, str]] = []
    stop = threading.Event()

    def single(name: str, n: int) -> None:
        while not stop.is_set():
            status, answer, _ = post(cluster, name, {"n": n})
            assert status in (200, 503), answer
            if status == 200:
                assert answer["n"] == 2 * n
                pids[name].add(answer["pid"])
                good[name] += 1
            else:
                refused.append((name, answer["detail"]))

    def items(name: str, n: int) -> None:
        while not stop.is_set():
            status, found, last = stream(cluster, name, n)
            assert [one["n"] for one in found] == [*range(len(found))]
            if "end" in last:
                assert (last["end"]["items"], len(found)) == (n, n)
                pids[name] |= {one["pid"] for one in found}
                good[name] += 1
            else:
                problem = last["error"] if status == 200 else last
                assert problem["status"] == 503, problem
                refused.append((name, problem["detail"]))

    with ThreadPoolExecutor(10) as pool:
        calls = [pool.submit(single, "batches", n) for n in range(4)]
        calls += [pool.submit(single, "canary", n) for n in range(2)]
        calls += [pool.submit(items, "streams", n) for n in (5, 20)]
        killed: set[int] = set()
        try:
            for updates in (False, True, False):
                for name in pids:
                    killed.add(until(lambda name=name: _kill_one(pids[name])))
                    before = good[name]
                    until(lambda name=name, before=before: good[name] >= before + 3 or _failed(calls))
                if updates:  # while they are used, and their workers are killed
                    deployed(cluster, "batches", "batching", min_workers=1, max_workers=2)
                    deployed(cluster, "streams", "counting", min_workers=1, max_workers=2)
                    deployed(cluster, "canary", shares=share, min_workers=1, max_workers=2)
        finally:
            stop.set()
        for one in calls:
            one.result(60)
    assert len(refused) <= len(killed), refused
    assert all("killed by signal 9" in text for _, text in refused), refused


def _kill_one(pids: set[int]) -> int | None:
    """Kill a worker that has answered; return its process id, or None if there is none at the moment."""
    while pids:
        victim = pids.pop()
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:  # it was replaced by an update
            continue
        pids.clear()  # those that answer from now on
        return victim
    return None


def _failed(calls: list[Any]) -> bool:
    return any(one.done() and one.exception() is not None for one in calls)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_requests_to_a_killed_executor_are_refused_and_served_again(cluster: Cluster) -> None:
    deployed(cluster, "executors")
    assert until(lambda: answered(cluster, "executors"))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(post, cluster, "executors", {"n": 3, "pause": 20})
        until(lambda: _load(cluster, running))
        cluster.kill("executor")
        status, problem, _ = running.result(60)
    assert status == 503, problem
    assert "does not respond" in problem["detail"]
    cluster.restart("executor")
    assert until(lambda: answered(cluster, "executors"))


def _load(cluster: Cluster, running: Any) -> bool:
    time.sleep(0.5)
    return not running.done()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_executor_that_stops_gracefully_records_every_run(cluster: Cluster) -> None:
    client = deployed(cluster, "stopping")
    assert until(lambda: answered(cluster, "stopping"))
    with ThreadPoolExecutor(8) as pool:
        found = [*pool.map(lambda n: post(cluster, "stopping", {"n": n}), range(60))]
    assert {status for status, _, _ in found} == {200}
    os.kill(cluster.pid("executor"), signal.SIGTERM)
    cluster.wait_exit("executor")
    wanted = {run for _, _, run in found}
    listed = until(
        lambda: wanted <= {run.run_id for run in client.runs.list(deployment="stopping", limit=500)}, within=30
    )
    assert listed
    run = client.runs.get(found[0][2])
    assert (run.state, [*run.steps]) == ("succeeded", ["double", "located"])
    cluster.start_service("executor")
    cluster.wait_ready("executor")
    assert until(lambda: answered(cluster, "stopping"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_restarted_gateway_finds_the_workers(cluster: Cluster) -> None:
    deployed(cluster, "gateways")
    first = until(lambda: post(cluster, "gateways", {"n": 1})[1])
    cluster.kill("gateway")
    cluster.restart("gateway")
    assert until(lambda: answered(cluster, "gateways"))
    assert post(cluster, "gateways", {"n": 1})[1]["pid"] == first["pid"]
