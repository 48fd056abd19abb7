"""Pods that stay after an attempt and take others of their class: fast, and gone when idle."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import nats
import nats.errors
import pytest

from penstock_core import ids, pod_protocol
from penstock_testkit.servers import kubernetes as kit
from penstock_testkit.servers.kubernetes import Platform, until

PIPELINES = """
import time
from penstock import context, pipeline, step

@step
def add(x: int) -> int:
    return x + 1

@step
def die(x: int) -> int:
    if context().attempt == 1:
        time.sleep(60)
    return context().attempt

@pipeline
def chain(x: int = 0) -> int:
    for _ in range(10):
        x = add(x)
    return x

@pipeline
def wide() -> list[int]:
    return add.map(x=list(range(30)))

@pipeline
def dying(x: int = 0) -> int:
    return die(add(x))
"""
IDLE = 12


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with kit.platform_in(tmp_path_factory.mktemp("workers"), replicas=2, worker_idle=IDLE, max_pending=6) as platform:
        for name in ("chain", "wide", "dying"):
            platform.register("worker_pods", PIPELINES, name)
        yield platform


def test_a_chain_runs_in_one_pod(platform: Platform) -> None:
    run_id = platform.start("chain")
    assert platform.result(run_id) == 10
    steps = platform.client.runs.get(run_id).steps.values()
    assert len(steps) == 10
    # A pod takes seconds: if each step had one of its own, this would take half a minute.
    took = max(step.finished_at for step in steps) - min(step.started_at for step in steps)
    print(f"nine steps after the first one took {took:.2f} s")
    assert took < 10
    assert len(platform.kube.names(run_id)) <= 3


def test_the_secret_of_a_pod_can_only_claim_and_is_deleted_with_its_workflow(platform: Platform) -> None:
    run_id = platform.start("dying")  # its step sleeps
    pod = platform.kube.running_pod(run_id)
    token = platform.kube.secret(pod.metadata.name)["token"]

    async def attack() -> list[str]:
        errors: list[str] = []

        async def failed(error: Exception) -> None:
            errors.append(str(error))

        url = platform.settings["nats_url"]
        client = await nats.connect(url, token=token, inbox_prefix=pod_protocol.inbox(token), error_cb=failed)
        run, key = f"runs.{ids.shard(run_id)}.{run_id}", "die"
        subjects = [f"{run}.finished", f"{run}.step.{key}.1.finished", f"logs.{run_id}.{key}.1"]
        subjects += [pod_protocol.subject("default", run_id, key, 1, pod_protocol.FINISH), "$JS.API.STREAM.LIST"]
        for subject in subjects:
            await client.publish(subject, b"{}")
        await client.flush()
        await asyncio.sleep(0.5)
        # An attempt of another pod is refused by the executor.
        other = pod_protocol.claim("default", pod.metadata.name, run_id, "add", 1)
        with contextlib.suppress(nats.errors.Error):
            answer = await client.request(other, b'{"runner": "x.y"}', timeout=2, headers={pod_protocol.TRY: "2"})
            assert b"refused" in answer.data
        await client.close()
        assert len(errors) == len(subjects), errors
        return errors

    asyncio.run(attack())
    platform.client.runs.cancel(run_id)
    platform.finish(run_id)
    until(lambda: pod.metadata.name not in platform.kube.names())
    until(lambda: pod.metadata.name not in platform.kube.secrets())


def test_a_wide_step_shares_few_pods(platform: Platform) -> None:
    run_id = platform.start("wide")
    assert platform.result(run_id) == list(range(1, 31))
    assert len(platform.kube.names(run_id)) < 30


def test_a_worker_that_dies_loses_its_attempt_once(platform: Platform) -> None:
    run_id = platform.start("dying")
    step = until(lambda: _running(platform, run_id))
    assert step.attempts == 1
    for pod in platform.kube.core.list_namespaced_pod(platform.kube.namespace).items:
        platform.kube.delete_pod(pod.metadata.name, 0)
    assert platform.result(run_id) == 2


def _running(platform: Platform, run_id: str) -> object:
    steps = platform.client.runs.get(run_id).steps
    return steps.get("die") if "die" in steps and steps["die"].state == "running" else None


def test_cancelling_a_step_in_a_worker_ends_it(platform: Platform) -> None:
    run_id = platform.start("dying")
    until(lambda: _running(platform, run_id))
    platform.client.runs.cancel(run_id)
    assert platform.finish(run_id).state == "cancelled"


def test_executors_may_be_killed_while_workers_run(platform: Platform) -> None:
    runs = [platform.start("chain") for _ in range(3)]
    for name in platform.executors:
        platform.services.kill(name)
        platform.services.start_service(name)
    for run_id in runs:
        assert platform.result(run_id) == 10
        losses = platform.losses(run_id)
        attempts = [step.attempts for step in platform.client.runs.get(run_id).steps.values()]
        assert attempts == [1] * 10, losses


def test_idle_workers_end(platform: Platform) -> None:
    until(lambda: not platform.kube.running_workflows(), timeout=IDLE + 40)
