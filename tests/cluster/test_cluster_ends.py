"""Attempts that the cluster ends, or that somebody ends by hand: the reason is shown, and losses burn no retry."""

from __future__ import annotations

from collections.abc import Iterator

import kubernetes.client
import pytest

from penstock_testkit.servers import kubernetes as kit
from penstock_testkit.servers.kubernetes import Platform, until

PIPELINES = """
import os, signal, sys, time
from penstock import Resources, context, pipeline, step

@step
def nap(seconds: float) -> int:
    print("attempt", context().attempt, flush=True)
    time.sleep(seconds if context().attempt == 1 else 0)
    return context().attempt

@step
def hog() -> int:
    import mmap
    area = mmap.mmap(-1, 600 * 2**20)
    for at in range(0, len(area), 4096):
        area[at] = 1
    return 1

@step(resources=Resources(gpu=1))
def gpu() -> int:
    return 1

@step(timeout="2s")
def slow() -> int:
    time.sleep(60)
    return 1

@step
def graceful() -> int:
    saved = context().restore(0)
    def stop(*_):
        context().checkpoint(41)
        sys.exit(3)
    signal.signal(signal.SIGTERM, stop)
    if saved:
        return saved + 1
    print("waiting", flush=True)
    time.sleep(120)
    return 0

@pipeline
def naps(seconds: float = 60.0) -> int:
    return nap(seconds)

@pipeline
def hogs() -> int:
    return hog()

@pipeline
def gpus() -> int:
    return gpu()

@pipeline
def slows() -> int:
    return slow()

@pipeline
def gracefuls() -> int:
    return graceful()
"""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    # A machine under load needs more than the usual seconds to save a checkpoint.
    with kit.platform_in(tmp_path_factory.mktemp("ends"), services={"PENSTOCK_GRACE": "40"}, grace=60) as platform:
        for name in ("naps", "hogs", "gpus", "slows", "gracefuls"):
            platform.register("cluster_ends", PIPELINES, name)
        yield platform


def test_a_container_over_its_memory_is_named_with_its_limit(platform: Platform) -> None:
    found = platform.error(platform.start("hogs"))
    assert found.type == "OutOfMemory" and "512 MiB" in found.message, found


def test_a_timeout_of_the_step_is_enforced_by_the_runner(platform: Platform) -> None:
    assert platform.error(platform.start("slows")).type == "Timeout"


def test_a_pod_that_no_node_takes_shows_why_and_times_out(platform: Platform) -> None:
    platform.configure(queue_timeout=15)
    run_id = platform.start("gpus")
    shown = until(lambda: platform.step(run_id).progress, timeout=20)
    assert "nvidia.com/gpu" in shown.text
    found = platform.error(run_id)
    assert found.type == "QueueTimeout" and "Unschedulable" in found.message, found
    until(lambda: not platform.kube.names(run_id))
    platform.configure()


def test_a_workflow_deleted_by_hand_is_followed_by_another_attempt(platform: Platform) -> None:
    run_id = platform.start("naps")
    platform.kube.running_pod(run_id)
    platform.kube.delete(platform.kube.names(run_id)[0])
    assert platform.result(run_id) == 2


@pytest.mark.parametrize("grace", [0, 10])
def test_a_pod_deleted_by_hand_runs_user_code_once(platform: Platform, grace: int) -> None:
    run_id = platform.start("naps")
    pod = platform.kube.running_pod(run_id)
    until(lambda: "attempt 1" in platform.output(run_id))
    platform.kube.delete_pod(pod.metadata.name, grace)
    assert platform.result(run_id) == 2
    assert platform.output(run_id).count("attempt 1") == 1


def test_a_cancelled_run_leaves_no_pod(platform: Platform) -> None:
    run_id = platform.start("naps")
    platform.kube.running_pod(run_id)
    platform.client.runs.cancel(run_id)
    assert platform.finish(run_id).state == "cancelled"
    until(lambda: not platform.kube.names(run_id) and not platform.kube.pods_of(run_id))


def test_sigterm_leaves_time_for_a_checkpoint(platform: Platform) -> None:
    run_id = platform.start("gracefuls")
    pod = platform.kube.running_pod(run_id)
    until(lambda: "waiting" in platform.output(run_id))
    platform.kube.delete_pod(pod.metadata.name, 60)
    assert platform.result(run_id) == 42, platform.losses(run_id)


def test_a_used_up_quota_is_waited_for(platform: Platform) -> None:
    quota = kubernetes.client.V1ResourceQuota(
        metadata=kubernetes.client.V1ObjectMeta(name="penstock-test"),
        spec=kubernetes.client.V1ResourceQuotaSpec(hard={"pods": "0"}),
    )
    platform.kube.core.create_namespaced_resource_quota(platform.kube.namespace, quota)
    try:
        run_id = platform.start("naps", seconds=0.0)
        shown = until(lambda: platform.step(run_id).progress, timeout=40)
        assert "exceeded quota" in shown.text
    finally:
        platform.kube.core.delete_namespaced_resource_quota("penstock-test", platform.kube.namespace)
    assert platform.finish(run_id).state == "succeeded"


def test_orphans_are_deleted(platform: Platform) -> None:
    """A Workflow whose attempt has ended in the log, such as one that was submitted by a replica that died."""
    run_id = platform.start("naps", seconds=0.0)
    assert platform.finish(run_id).state == "succeeded"
    body = platform.kube.custom.get_namespaced_custom_object(*platform.kube.workflows, platform.kube.names(run_id)[0])
    labels = {k: v for k, v in body["metadata"]["labels"].items() if not k.startswith("workflows.argoproj.io/")}
    metadata = {"name": "penstock-orphan", "labels": labels, "annotations": body["metadata"]["annotations"]}
    body["spec"]["templates"][0]["container"]["command"] = ["python3", "-c", "import time; time.sleep(300)"]
    orphan = {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": metadata, "spec": body["spec"]}
    platform.kube.custom.create_namespaced_custom_object(*platform.kube.workflows, orphan)
    until(lambda: "penstock-orphan" not in platform.kube.names(), timeout=60)
