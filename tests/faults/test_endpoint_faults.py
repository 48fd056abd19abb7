"""Requests to endpoints and webhooks while services are killed, and under overload: an accepted one has one run."""

from __future__ import annotations

import hmac
import http.client
import json
import time
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from penstock import Client
from penstock_testkit.servers.cluster import Cluster

FLOWS = """
import time
from penstock import pipeline, step

@step
def double(n: int, pause: float) -> int:
    time.sleep(pause)
    return n * 2

@pipeline
def doubling(n: int, pause: float = 0.0):
    return double(n, pause)
"""
CALLS = 24


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as running:
        running.source("flows.py", FLOWS)
        yield running


def deployed(cluster: Cluster, name: str, **options: float) -> Client:
    client = Client(url=cluster.url, token=cluster.token, patience=120)
    client.pipelines.register(f"{cluster.src / 'flows.py'}:doubling")
    trigger = {"kind": "endpoint", "name": "endpoint", **options}
    client.deployments.apply(name, {"pipeline": "doubling", "triggers": [trigger]})
    return client


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_request_that_is_repeated_after_a_kill_has_one_run(cluster: Cluster) -> None:
    client = deployed(cluster, "killed")

    def call(n: int) -> object:
        return client.endpoints.call("killed", {"n": n, "pause": 0.2}, idempotency_key=f"order-{n}", timeout=200)

    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(call, n) for n in range(CALLS)]
        for victim in ("gateway", "triggers", "gateway", "scheduler"):
            done = sum(answer.done() for answer in answers)
            deadline = time.monotonic() + 100
            while sum(answer.done() for answer in answers) < min(done + 3, CALLS) and time.monotonic() < deadline:
                time.sleep(0.02)
            cluster.kill(victim)
            cluster.restart(victim)
        assert [answer.result(timeout=250) for answer in answers] == [2 * n for n in range(CALLS)]
    assert [call(n) for n in range(CALLS)] == [2 * n for n in range(CALLS)]
    runs = client.runs.list(deployment="killed", limit=500)
    assert len(runs) == CALLS


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_overload_is_refused_and_every_accepted_request_is_answered(cluster: Cluster) -> None:
    client = deployed(cluster, "crowded", queue=4)
    token = {"authorization": f"Bearer {cluster.token}"}

    def request(n: int) -> tuple[int, str]:
        # Not `call`, which repeats a refused request.
        body = json.dumps({"n": 1, "pause": 0.1 + n % 3 / 10}).encode()
        status, headers = once(client, "/v1/endpoints/default/crowded?wait=0", body, token)
        return status, headers.get("location", "") or headers.get("retry-after", "")

    with ThreadPoolExecutor(16) as pool:
        answers = [*pool.map(request, range(80))]
    accepted = [location for status, location in answers if status == 202]
    refused = [pause for status, pause in answers if status == 429]
    assert len(accepted) + len(refused) == 80
    assert len(accepted) >= 4
    assert refused
    assert all(int(pause) >= 1 for pause in refused)
    for location in accepted:
        status, _, answer = client.transport.response("GET", f"{location}?wait=60")
        assert (status, answer) == (200, 2), location
    assert len(client.runs.list(deployment="crowded", limit=500)) == len(accepted)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_webhook_that_was_acknowledged_has_one_run(cluster: Cluster) -> None:
    client = deployed(cluster, "hooked")
    client.secrets.set("hook", "s3cret")
    hook = {
        "kind": "webhook",
        "name": "hook",
        "provider": "github",
        "secret": "secret:hook",
        "inputs": {"n": "data.n"},
    }
    client.deployments.apply("hooked", {"pipeline": "doubling", "triggers": [hook]})

    def deliver(n: int) -> None:
        body = json.dumps({"n": n}).encode()
        headers = {
            "x-github-event": "push",
            "x-github-delivery": f"delivery-{n}",
            "x-hub-signature-256": f"sha256={hmac.new(b's3cret', body, 'sha256').hexdigest()}",
        }
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                status, _ = once(client, "/v1/webhooks/default/hooked", body, headers)
            except (OSError, http.client.HTTPException):
                status = 0
            if status in (200, 202):
                return
            assert status in (0, 503), status
            time.sleep(0.1)
        raise AssertionError(f"delivery {n} was never acknowledged")

    with ThreadPoolExecutor(4) as pool:
        delivered = [pool.submit(deliver, n) for n in range(CALLS)]
        for victim in ("gateway", "triggers", "gateway"):
            time.sleep(0.1)
            cluster.kill(victim)
            cluster.restart(victim)
        for one in delivered:
            one.result(timeout=250)

    def numbers() -> list[int]:
        runs = client.runs.list(deployment="hooked", limit=500)
        return sorted(client.runs.get(run.run_id).inputs["n"]["value"] for run in runs)

    deadline = time.monotonic() + 120
    while (found := numbers()) != [*range(CALLS)]:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def once(client: Client, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, str]]:
    """Send a request once; return status and headers of its answer."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(client.transport.locate().url).netloc, timeout=30)
    try:
        connection.request("POST", path, body, {"content-type": "application/json", **headers})
        response = connection.getresponse()
        response.read()
        return response.status, {name.lower(): value for name, value in response.getheaders()}
    finally:
        connection.close()
