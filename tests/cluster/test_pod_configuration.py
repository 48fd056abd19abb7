"""What is wrong with the configuration of pods is shown at the first attempt."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from penstock_testkit.servers import kubernetes as kit
from penstock_testkit.servers.kubernetes import Platform

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
    with kit.platform_in(tmp_path_factory.mktemp("configs")) as platform:
        platform.register("pod_configuration", PIPELINES, "naps")
        yield platform


def test_an_image_that_cannot_be_pulled_fails_at_once(platform: Platform) -> None:
    platform.configure(image="penstock.test/none:1")
    found = platform.error(platform.start("naps"))
    assert found.type == "ImagePullFailed" and "penstock.test/none:1" in found.message, found


def test_an_image_without_penstock_says_so(platform: Platform) -> None:
    platform.configure(command=["python3", "-c", "import sys; sys.exit('No module named penstock')"])
    found = platform.error(platform.start("naps"))
    assert found.type == "RunnerMissing" and "No module named penstock" in found.message, found


def test_a_command_that_does_not_exist_says_so(platform: Platform) -> None:
    platform.configure(command=["no-such-program"])
    found = platform.error(platform.start("naps"))
    assert found.type == "RunnerMissing" and "no-such-program" in found.message, found


def test_a_missing_secret_says_so(platform: Platform) -> None:
    reference = {"secretKeyRef": {"name": "no-such-secret", "key": "password"}}
    platform.configure(env=[{"name": "DB_PASSWORD", "valueFrom": reference}])
    found = platform.error(platform.start("naps"))
    assert found.type == "ContainerFailed" and "no-such-secret" in found.message, found


def test_a_missing_namespace_says_so(platform: Platform) -> None:
    platform.configure(namespace="no-such-namespace")
    found = platform.error(platform.start("naps"))
    assert found.type == "SubmissionRefusedError" and "no-such-namespace" in found.message, found
    platform.configure()
