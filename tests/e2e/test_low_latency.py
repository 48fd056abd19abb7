"""Endpoints with mode `low_latency`, through HTTP, on a platform of separate processes."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import time
import urllib.parse
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

import numpy as np
from penstock import Batch, ask, context, pipeline, step

LOADED = time.time()

@step
def prepare(numbers: list[float]) -> np.ndarray:
    context().log_metric("count", len(numbers))
    return np.array(numbers)

@step
def total(parts: np.ndarray) -> dict[str, float]:
    return {"total": float(parts.sum()), "pid": float(os.getpid()), "loaded": LOADED}

@pipeline
def adding(numbers: list[float]):
    return total(prepare(numbers))

@step
def work(n: int, pause: float, die: bool, revision: str) -> dict[str, object]:
    if die:
        os._exit(3)
    time.sleep(pause)
    return {"n": n, "pid": os.getpid(), "revision": revision}

@pipeline
def working(n: int, pause: float = 0.0, die: bool = False, revision: str = "one"):
    return work(n, pause, die, revision)

@step
def halves(n: int) -> list[int]:
    return [n // 2, n - n // 2]

@step
def squared(n: int) -> int:
    return n * n

@step
def added(numbers: list[int]) -> int:
    return sum(numbers)

@pipeline
def mapped(n: int):
    return added(squared.map(halves(n)))

@pipeline
def table(numbers: list[float]):
    return prepare(numbers)

@step(batch=Batch(max=8, wait="200ms"))
def measure(numbers: list[int], factor: int) -> list[dict[str, int]]:
    if 13 in numbers:
        os._exit(1)
    if 7 in numbers:
        raise ValueError("seven")
    return [{"n": n * factor, "together": len(numbers)} for n in numbers]

@pipeline
def measuring(n: int, factor: int = 2):
    return measure(n, factor)

@step
def tokens(n: int, pause: float, fail_at: int, die_at: int) -> Iterator[str]:
    try:
        for i in range(n):
            if i == fail_at:
                raise ValueError("no more")
            if i == die_at:
                os._exit(4)
            yield f"token {i}"
            time.sleep(pause)
    finally:
        print("closed", flush=True)

@pipeline
def speaking(n: int, pause: float = 0.0, fail_at: int = -1, die_at: int = -1):
    return tokens(n, pause, fail_at, die_at)

@pipeline
def asking():
    return ask("Go?", choices=["yes", "no"])

@step(concurrency="gpu:1", pool="default")
def limited() -> int:
    return 1

@pipeline
def limiting():
    return limited()
"""


class Platform:
    """A cluster, and requests to its endpoints."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.client = Client(url=cluster.url, token=cluster.token, patience=120)

    def deploy(self, name: str, pipeline: str, inputs: dict[str, Any] | None = None, **options: Any) -> None:
        self.client.pipelines.register(f"{self.cluster.src / 'flows.py'}:{pipeline}")
        shares = {name: options.pop(name) for name in ("canary", "shadow", "version") if name in options}
        trigger = {"kind": "endpoint", "name": "endpoint", **options}
        definition = {
            "pipeline": pipeline,
            "mode": "low_latency",
            "triggers": [trigger],
            "inputs": inputs or {},
            **shares,
        }
        self.client.deployments.apply(name, definition)

    def post(self, name: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """Send a request once; return the status and the answer."""
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(self.cluster.url).netloc, timeout=120)
        try:
            given = {"content-type": "application/json", "authorization": f"Bearer {self.cluster.token}"}
            connection.request("POST", f"/v1/endpoints/default/{name}", json.dumps(body), given | (headers or {}))
            response = connection.getresponse()
            return response.status, json.loads(response.read() or b"null")
        finally:
            connection.close()

    def get(self, path: str) -> tuple[int, bytes]:
        """Return the status and the body of a path."""
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(self.cluster.url).netloc, timeout=120)
        try:
            connection.request("GET", path, headers={"authorization": f"Bearer {self.cluster.token}"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def answer(self, name: str, body: dict[str, Any]) -> Any:
        status, found = self.post(name, body)
        assert status == 200, found
        return found


def until(look: Callable[[], T], within: float = 60.0) -> T:
    """Poll `look` until it returns something."""
    deadline = time.monotonic() + within
    while not (found := look()):
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as running:
        running.source("flows.py", FLOWS)
        yield Platform(running)


def test_requests_run_in_one_warm_process_and_are_recorded(platform: Platform) -> None:
    platform.deploy("adder", "adding")
    answers = [platform.answer("adder", {"numbers": [1, 2, n]}) for n in range(4)]
    assert [one["total"] for one in answers] == [3, 4, 5, 6]
    assert len({(one["pid"], one["loaded"]) for one in answers}) == 1
    runs = until(lambda: [*found] if len(found := platform.client.runs.list(deployment="adder")) == 4 else None)
    assert {run.state for run in runs} == {"succeeded"}
    run = platform.client.runs.get(runs[0].run_id)
    assert run.outputs["result"]["value"]["total"] in (3, 4, 5, 6)
    assert [(key, step.state) for key, step in run.steps.items()] == [("prepare", "succeeded"), ("total", "succeeded")]
    assert run.steps["prepare"].metrics == {"count": 3}
    assert run.trigger["deployment"] == "adder"


def test_mapped_steps_and_large_outputs(platform: Platform) -> None:
    platform.deploy("mapped", "mapped", max_workers=1)
    assert platform.answer("mapped", {"n": 7}) == 25
    platform.deploy("table", "table", record=0, max_workers=1)
    link = platform.answer("table", {"numbers": [1, 2, 3]})
    [run] = until(lambda: platform.client.runs.list(deployment="table"))  # kept with its artifact, whatever the share
    assert platform.client.runs.get(run.run_id).outputs["result"]["artifact"]["sha256"] == link["sha256"]
    _, _, again = platform.client.transport.response("GET", link["href"].rpartition("/artifacts/")[0])
    assert again == link
    status, content = platform.get(link["href"])
    assert (status, hashlib.sha256(content).hexdigest()) == (200, link["sha256"])


def test_requests_are_combined_to_batches(platform: Platform) -> None:
    platform.deploy("batched", "measuring", max_workers=1)
    assert platform.answer("batched", {"n": 1}) == {"n": 2, "together": 1}
    with ThreadPoolExecutor(8) as pool:
        found = [*pool.map(lambda n: platform.answer("batched", {"n": n}), range(6))]
        assert [one["n"] for one in found] == [0, 2, 4, 6, 8, 10]
        assert max(one["together"] for one in found) > 1
        # An input that the function refuses, or that ends the worker, harms no other request.
        for poison, status in ((7, 500), (13, 503)):
            numbers = [1, 2, poison, 4]
            answers = [*pool.map(lambda n: platform.post("batched", {"n": n})[0], numbers)]
            assert answers == [200, 200, status, 200]
    platform.client.deployments.pause("batched")
    run = platform.client.runs.submit("measuring", {"n": 4})
    assert platform.client.runs.wait(run.run_id).outputs["result"]["value"] == {"n": 8, "together": 1}


def test_a_worker_that_dies_costs_its_request_only(platform: Platform) -> None:
    platform.deploy("fragile", "working", min_workers=2, max_workers=2)
    platform.answer("fragile", {"n": 0})
    with ThreadPoolExecutor(4) as pool:
        slow = [pool.submit(platform.post, "fragile", {"n": n, "pause": 0.5}) for n in range(1)]
        status, problem = platform.post("fragile", {"n": 1, "die": True})
        assert status == 503, problem
        assert "ended while it ran the request" in problem["detail"]
        assert "exited with code 3" in problem["detail"] or "exit with code 3" in problem["detail"]
        assert [one.result()[0] for one in slow] == [200]
    assert platform.answer("fragile", {"n": 2})["n"] == 2
    failed = until(lambda: [run for run in platform.client.runs.list(deployment="fragile") if run.state == "failed"])
    assert len(failed) == 1


SSE = "text/event-stream"


def stream(
    platform: Platform, name: str, body: dict[str, Any], accept: str = SSE
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """Send a request whose answer is a stream."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(platform.cluster.url).netloc, timeout=120)
    headers = {"content-type": "application/json", "authorization": f"Bearer {platform.cluster.token}"}
    connection.request("POST", f"/v1/endpoints/default/{name}", json.dumps(body), headers | {"accept": accept})
    return connection, connection.getresponse()


def ended(platform: Platform, deployment: str, state: str) -> Any:
    """Wait for the recorded run of a deployment in a state."""
    find = lambda: [one for one in platform.client.runs.list(deployment=deployment) if one.state == state]  # noqa: E731
    return platform.client.runs.get(until(find)[0].run_id)


def test_items_are_streamed_and_recorded(platform: Platform) -> None:
    platform.deploy("speaker", "speaking", max_workers=1)
    assert platform.answer("speaker", {"n": 2}) == ["token 0", "token 1"]
    connection, response = stream(platform, "speaker", {"n": 3, "pause": 0.3})
    assert (response.status, response.headers["content-type"]) == (200, SSE)
    began = time.monotonic()
    assert response.readline() == b'data: "token 0"\n'
    first = time.monotonic() - began
    rest = response.read().decode()
    assert time.monotonic() - began > first + 0.3
    run_id = response.headers["penstock-run"]
    end = f'event: end\ndata: {{"run_id":"{run_id}","items":3}}\n\n'
    assert rest == f'\ndata: "token 1"\n\ndata: "token 2"\n\n{end}'
    connection.close()
    connection, response = stream(platform, "speaker", {"n": 1}, "application/x-ndjson")
    lines = [json.loads(line) for line in response.read().splitlines()]
    assert (lines[0], lines[1]["end"]["items"]) == ({"item": "token 0"}, 1)
    connection.close()
    assert [*platform.client.endpoints.stream("speaker", {"n": 2})] == ["token 0", "token 1"]
    run = until(lambda: next((one for one in platform.client.runs.list() if one.run_id == run_id), None))
    assert platform.client.runs.get(run.run_id).outputs["result"]["value"] == ["token 0", "token 1", "token 2"]
    platform.deploy("silent", "working", max_workers=1)
    connection, response = stream(platform, "silent", {"n": 1})
    assert response.status == 406
    connection.close()
    content = json.loads(platform.get("/v1/endpoints/default/speaker/openapi.json")[1])["paths"]
    answers = content["/v1/endpoints/default/speaker"]["post"]["responses"]["200"]["content"]
    assert answers["application/json"]["schema"] == {"type": "array", "items": {"type": "string"}}
    assert answers[SSE]["x-item-schema"] == {"type": "string"}


def test_errors_of_streams(platform: Platform) -> None:
    platform.deploy("breaking", "speaking", max_workers=1, wait="3s")
    for body, status, text in (
        ({"n": 3, "fail_at": 0}, 500, "no more"),
        ({"n": "x"}, 422, "expected int"),
    ):
        connection, response = stream(platform, "breaking", body)
        assert response.status == status
        assert text in response.read().decode()
        connection.close()
    for body, status, text in (
        ({"n": 3, "fail_at": 2}, 500, "no more"),
        ({"n": 3, "die_at": 2}, 503, "ended while it ran the request"),
        ({"n": 1000, "pause": 0.1}, 504, "did not answer within 3 s"),
    ):
        connection, response = stream(platform, "breaking", body)
        assert response.status == 200
        *items, error, _ = response.read().decode().split("\n\n")
        assert items[:2] == ['data: "token 0"', 'data: "token 1"']
        assert error.startswith("event: error\ndata: {")
        problem = json.loads(error.partition("data: ")[2])
        assert (problem["status"], text in problem["detail"]) == (status, True), problem
        connection.close()
    with pytest.raises(Exception, match="no more"):
        [*platform.client.endpoints.stream("breaking", {"n": 3, "fail_at": 1})]
    assert platform.answer("breaking", {"n": 1}) == ["token 0"]


def test_a_client_that_disconnects_ends_its_stream_and_nothing_else(platform: Platform) -> None:
    platform.deploy("left", "speaking", max_workers=1, wait="120s")
    connection, response = stream(platform, "left", {"n": 10_000, "pause": 0.05})
    assert response.readline() == b'data: "token 0"\n'
    connection.sock.close()
    response.close()
    connection.close()
    assert platform.answer("left", {"n": 1}) == ["token 0"]  # long before the first one would have ended
    run = ended(platform, "left", "cancelled")
    assert "disconnected" in run.steps["tokens"].error.message


def test_an_endless_stream_is_read_at_the_pace_of_its_client(platform: Platform) -> None:
    platform.deploy("slow", "speaking", max_workers=1, wait="60s")
    connection, response = stream(platform, "slow", {"n": 10**9})
    assert response.readline() == b'data: "token 0"\n'
    for n in range(2_000):
        assert response.readline() == b"\n"
        assert response.readline() == b'data: "token %d"\n' % (n + 1)
    connection.sock.close()
    response.close()
    connection.close()
    assert platform.answer("slow", {"n": 1}) == ["token 0"]


def test_more_requests_than_the_queue_allows_are_refused(platform: Platform) -> None:
    platform.deploy("crowded", "working", queue=3, max_workers=1)
    platform.answer("crowded", {"n": 0})
    with ThreadPoolExecutor(12) as pool:
        found = [*pool.map(lambda n: platform.post("crowded", {"n": n, "pause": 0.3}), range(12))]
    statuses = [status for status, _ in found]
    assert set(statuses) == {200, 429}
    assert statuses.count(200) >= 3


def test_workers_start_while_requests_wait_and_stop_when_idle(platform: Platform) -> None:
    platform.deploy("elastic", "working", min_workers=0, max_workers=3, idle=1)
    workers = lambda: platform.cluster.about("executor")["workers"]  # noqa: E731
    with ThreadPoolExecutor(6) as pool:
        found = [*pool.map(lambda n: platform.answer("elastic", {"n": n, "pause": 0.6}), range(9))]
    assert [one["n"] for one in found] == [*range(9)]
    assert len({one["pid"] for one in found}) > 1
    pids = {one["pid"] for one in found}
    until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))  # noqa: PTH110
    assert platform.answer("elastic", {"n": 1})["pid"] not in pids
    assert workers() >= 1


def test_an_update_fails_no_request(platform: Platform) -> None:
    platform.deploy("updated", "working", {"revision": "one"}, max_workers=2)
    platform.answer("updated", {"n": 0})
    ending = time.monotonic() + 60
    seen: set[str] = set()

    def call(n: int) -> list[int]:
        statuses: list[int] = []
        while time.monotonic() < ending and "three" not in seen:
            status, found = platform.post("updated", {"n": n, "pause": 0.05})
            statuses.append(status)
            seen.add(found.get("revision", ""))
        return statuses

    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(call, n) for n in range(3)]
        until(lambda: "one" in seen)
        for revision in ("two", "three"):
            platform.deploy("updated", "working", {"revision": revision}, max_workers=2)
            until(lambda revision=revision: revision in seen)
        statuses = [status for one in calls for status in one.result()]
    assert set(statuses) == {200}
    assert seen == {"one", "two", "three"}


def test_canary_and_shadow_versions_get_their_share(platform: Platform) -> None:
    source = platform.cluster.src / "shared.py"
    for number in (1, 2, 3):
        text = f"""
from penstock import pipeline, step

@step
def tell(n: int) -> int:
    return {number}

@pipeline
def telling(n: int):
    return tell(n)
"""
        source.write_text(text)
        platform.client.pipelines.register(f"{source}:telling")
    definition = {
        "pipeline": "telling",
        "version": 1,
        "mode": "low_latency",
        "triggers": [{"kind": "endpoint", "name": "endpoint", "max_workers": 1}],
        "canary": {"version": 2, "weight": 0.5},
        "shadow": {"version": 3},
    }
    platform.client.deployments.apply("shared", definition)
    answers: set[int] = set()
    until(lambda: answers.add(platform.answer("shared", {"n": 0})) or answers == {1, 2})

    def roles() -> dict[int, str]:
        runs = platform.client.runs.list(deployment="shared", limit=500)
        return {run.version: platform.client.runs.get(run.run_id).trigger.get("role", "") for run in runs}

    until(lambda: roles() == {1: "", 2: "canary", 3: "shadow"})
    with pytest.raises(Exception, match="canary"):
        platform.client.deployments.apply("shared", {**definition, "canary": {"version": 9, "weight": 0.5}})


def test_the_open_inference_protocol(platform: Platform) -> None:
    platform.deploy("tensors", "adding")
    answered = platform.answer("tensors", {"numbers": [1]})
    path = "/v2/models/tensors"
    numbers = {"name": "numbers", "shape": [3], "datatype": "FP32", "data": [1, 2, 4]}

    def call(method: str, to: str, body: Any = None, token: str | None = platform.cluster.token) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(platform.cluster.url).netloc, timeout=60)
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
        try:
            connection.request(method, to, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    assert call("GET", "/v2/health/ready", token=None) == (200, {"ready": True})
    assert call("GET", f"{path}/ready")[0] == 200
    status, metadata = call("GET", path)
    assert (status, metadata["inputs"]) == (200, [{"name": "numbers", "datatype": "FP64", "shape": [-1]}])
    status, found = call("POST", f"{path}/infer", {"id": "a", "inputs": [numbers]})
    assert (status, found["model_name"], found["id"]) == (200, "tensors", "a"), found
    assert {"name": "total", "datatype": "FP64", "shape": [1], "data": [7.0]} in found["outputs"]
    assert answered["pid"] in found["outputs"][1]["data"]
    token = call("POST", "/v1/deployments/tensors/tokens", {"name": "shop"})[1]["token"]
    assert call("POST", f"{path}/infer", {"inputs": [numbers]}, token)[0] == 200
    assert call("POST", "/v2/models/adder/infer", {"inputs": [numbers]}, token)[0] == 403
    assert call("POST", f"{path}/infer", {"inputs": [numbers]}, None)[0] == 401
    for wrong, field in (
        ({"shape": [2]}, "inputs[0].data"),
        ({"datatype": "FP8"}, "inputs[0].datatype"),
        ({"data": [1, 2, "x"]}, "inputs[0].data[2]"),
    ):
        status, problem = call("POST", f"{path}/infer", {"inputs": [{**numbers, **wrong}]})
        assert (status, problem["errors"][0]["field"]) == (422, field)


def test_a_time_limit_ends_the_request_and_its_worker(platform: Platform) -> None:
    platform.deploy("hanging", "working", wait="1s", max_workers=1)
    first = platform.answer("hanging", {"n": 1})["pid"]
    status, problem = platform.post("hanging", {"n": 1, "pause": 60})
    assert status == 504, problem
    until(lambda: not os.path.exists(f"/proc/{first}"))  # noqa: PTH110
    until(lambda: platform.post("hanging", {"n": 2})[0] == 200)


def test_requests_with_a_key_are_stored_first(platform: Platform) -> None:
    platform.deploy("keyed", "working")
    status, found = platform.post("keyed", {"n": 5}, {"idempotency-key": "order-1"})
    again = platform.post("keyed", {"n": 5}, {"idempotency-key": "order-1"})
    assert (status, found) == again
    [run] = until(lambda: platform.client.runs.list(deployment="keyed"))
    assert not run.run_id.startswith("call-")
    assert platform.client.endpoints.call("keyed", {"n": 6})["n"] == 6
    assert until(
        lambda: [one for one in platform.client.runs.list(deployment="keyed") if one.run_id.startswith("call-")]
    )


def test_pipelines_that_no_worker_can_run_are_refused(platform: Platform) -> None:
    for pipeline, text in (("asking", "waits (ask)"), ("limiting", "has the limit 'gpu'")):
        with pytest.raises(Exception, match="Invalid deployment") as refused:
            platform.deploy("refused", pipeline)
        assert text in str(refused.value)


def test_wrong_inputs_and_failing_steps(platform: Platform) -> None:
    platform.deploy("checked", "adding")
    status, problem = platform.post("checked", {"numbers": [1, "x"]})
    assert (status, problem["errors"][0]["field"]) == (422, "numbers[1]")
    reference = {"sha256": "", "size": 0, "format": "json", "media_type": "application/json"}
    hidden = json.dumps([{"$type": "path", "path": "/etc/passwd"}]).encode()
    digest = hashlib.sha256(hidden).hexdigest()
    platform.client.artifacts.upload(hidden, digest)
    body = {"numbers": {"artifact": {**reference, "sha256": digest, "size": len(hidden)}}}
    status, problem = platform.post("checked", body)
    assert (status, problem["errors"][0]["field"]) == (422, "numbers"), problem
    assert "path" in problem["detail"]
    platform.client.deployments.pause("checked")
    assert until(lambda: platform.post("checked", {"numbers": []})[0] == 409)
    platform.client.deployments.resume("checked")
    assert platform.answer("checked", {"numbers": []})["total"] == 0
