"""Parts of the cluster are killed while steps run: every run finishes, and nothing is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from penstock_testkit.servers import kubernetes as kit
from penstock_testkit.servers.kubernetes import Platform, until

PIPELINES = """
import time
from penstock import pipeline, step

@step
def work(x: int) -> int:
    time.sleep(2)
    return x + 1

@pipeline
def works(x: int = 0) -> int:
    for _ in range(4):
        x = work(x)
    return x
"""
PARTS = ("workflow-controller", "kube-apiserver", "kubelet", "containerd")


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with kit.platform_in(tmp_path_factory.mktemp("faults"), worker_idle=3) as platform:
        platform.register("cluster_faults", PIPELINES, "works")
        yield platform


@pytest.mark.parametrize("part", PARTS)
def test_runs_finish_when_a_part_of_the_cluster_is_killed(
    platform: Platform, cluster_tool: Callable[..., None], part: str
) -> None:
    runs = [platform.start("works") for _ in range(2)]
    until(lambda: any(step.state == "running" for step in platform.client.runs.get(runs[0]).steps.values()))
    cluster_tool("restart", part)
    runs.append(platform.start("works"))
    for run_id in runs:
        assert platform.result(run_id) == 4


def test_nothing_is_left(platform: Platform) -> None:
    until(lambda: not platform.kube.running_workflows(), timeout=90)
