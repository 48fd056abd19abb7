"""Executors and NATS are killed while pods run: no attempt is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from penstock_testkit.servers import kubernetes as kit
from penstock_testkit.servers.kubernetes import Platform, until

PIPELINES = """
import time
from penstock import context, pipeline, step

@step
def nap(seconds: float) -> int:
    print("attempt", context().attempt, flush=True)
    time.sleep(seconds if context().attempt == 1 else 0)
    return context().attempt

@pipeline
def naps(seconds: float = 60.0) -> int:
    return nap(seconds)
"""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with kit.platform_in(tmp_path_factory.mktemp("kills"), replicas=2) as platform:
        platform.register("executor_kills", PIPELINES, "naps")
        yield platform


def test_killed_executors_lose_no_attempt(platform: Platform) -> None:
    run_id = platform.start("naps", seconds=8.0)
    platform.kube.running_pod(run_id)
    for name in platform.executors:  # one of them is responsible for it
        platform.services.kill(name)
    time.sleep(2)
    for name in platform.executors:
        platform.services.start_service(name)
    assert platform.result(run_id) == 1


def test_one_of_two_executors_may_die(platform: Platform) -> None:
    runs = [platform.start("naps", seconds=6.0) for _ in range(4)]
    platform.kube.running_pod(runs[0])
    platform.services.kill(platform.executors[0])
    for run_id in runs:
        assert platform.result(run_id) == 1, platform.losses(run_id)
    platform.services.start_service(platform.executors[0])
    platform.services.wait_ready(platform.executors[0])


def test_nats_may_be_away_while_a_step_runs(platform: Platform) -> None:
    run_id = platform.start("naps", seconds=5.0)
    platform.kube.running_pod(run_id)
    until(lambda: "attempt 1" in platform.output(run_id))
    platform.services.kill("nats")
    threading.Event().wait(8)
    platform.services.restart("nats")
    assert platform.result(run_id) == 1
