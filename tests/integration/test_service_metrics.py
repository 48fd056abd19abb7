"""`/metrics` of every service: values of a real run, and labels whose values do not grow with use."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from penstock import Client
from penstock.errors import NotFoundError
from penstock_core import ids
from penstock_testkit.servers.cluster import SERVICES, Cluster

PIPELINE = """
from penstock import pipeline, step

@step
def double(n: int) -> int:
    return n * 2

@step
def broken() -> int:
    raise ValueError("no")

@pipeline
def good(n: int = 1):
    return double(double(n))

@pipeline
def bad():
    return broken()
"""

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(cluster: Cluster, service: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(cluster.metrics(service))
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def test_metrics_of_all_services(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        client = Client(url=cluster.url, token=cluster.token)
        file = cluster.source("metrics_pipelines.py", PIPELINE)
        for name, state in (("good", "succeeded"), ("bad", "failed")):
            version = client.pipelines.register(f"{file}:{name}")
            assert client.run(version, wait=True).state == state
        for name in ("one", "two"):
            with pytest.raises(NotFoundError):
                client.runs.get(f"k{name}aaaaaaaaaaaaaaaaaaaaaa"[:26])
        found = {service: samples(cluster, service) for service in SERVICES}
    for service in SERVICES:
        assert value(found[service], "penstock_ready", part=service) == 1
        assert value(found[service], "penstock_ready", part="nats") == 1
        assert any(name == "penstock_info" and ("service", service) in labels for name, labels in found[service])
        assert any(name == "process_resident_memory_bytes" for name, _ in found[service])
    executor, scheduler, gateway = (found[name] for name in ("executor", "scheduler", "gateway"))
    assert value(executor, "penstock_attempts_finished_total", outcome="succeeded") == 2
    assert value(executor, "penstock_attempts_finished_total", outcome="failed") == 1
    assert value(executor, "penstock_attempt_seconds_count") == 3
    assert value(executor, "penstock_executor_attempts") == 0
    assert value(executor, "penstock_executor_slots") > 0
    assert value(executor, "penstock_consumer_pending", stream="RUNS", consumer="executor-default") == 0
    assert value(scheduler, "penstock_runs_finished_total", outcome="succeeded") == 1
    assert value(scheduler, "penstock_runs_finished_total", outcome="failed") == 1
    assert value(scheduler, "penstock_scheduler_shards") == ids.SHARDS
    assert value(gateway, "penstock_http_requests_total", operation="request_run", method="POST", status="2xx") == 2
    assert value(gateway, "penstock_http_requests_total", operation="read_run", method="GET", status="4xx") == 2
    labels = {text for service in SERVICES for _, pairs in found[service] for _, text in pairs}
    assert not [text for text in labels if "good" in text or "metrics_pipelines" in text or "aaaa" in text]
