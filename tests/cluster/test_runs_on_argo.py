"""Runs whose steps are pods: results, logs, metrics, artifacts and errors look as on one machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from penstock_testkit.servers.kubernetes import Platform

EXAMPLES = Path(__file__).parents[2] / "examples"

PIPELINE = """
import os
from pathlib import Path
from penstock import context, pipeline, step

@step
def make(n: int) -> list[int]:
    print("made in", os.environ["PENSTOCK_TEST"] if "PENSTOCK_TEST" in os.environ else "a pod")
    context().log_metric("size", n)
    context().progress(1, 2, "half")
    return list(range(n))

@step
def write(xs: list[int]) -> Path:
    folder = Path("out")
    folder.mkdir()
    (folder / "a.txt").write_text(str(sum(xs)))
    (folder / "large.bin").write_bytes(bytes(300_000))
    return folder

@step
def read(folder: Path) -> int:
    return int((folder / "a.txt").read_text())

@pipeline
def numbers(n: int = 10) -> int:
    return read(write(make(n)))
"""

ERRORS = """
from penstock import pipeline, step

@step(retries=1)
def fail(zero: int) -> float:
    return 1 / zero

@pipeline
def failing() -> float:
    return fail(0)
"""

CACHED = """
from penstock import pipeline, step

@step(cache=True)
def make() -> int:
    return 1

@pipeline
def cached() -> int:
    return make()
"""


def test_a_run_in_pods_has_results_logs_and_metrics(platform: Platform) -> None:
    version = platform.register("numbers_on_argo", PIPELINE, "numbers")
    run = platform.client.run(version, wait=True)
    assert run.state == "succeeded" and platform.client.artifacts.load(run.run_id) == 45
    assert "made in a pod" in platform.output(run.run_id)
    steps = platform.client.runs.get(run.run_id).steps
    assert steps["make"].metrics == {"size": 10.0} and steps["make"].attempts == 1
    folder = platform.client.artifacts.load(run.run_id, "write")
    assert (folder / "large.bin").stat().st_size == 300_000


def test_an_error_of_the_step_has_its_traceback_and_uses_retries(platform: Platform) -> None:
    version = platform.register("errors_on_argo", ERRORS, "failing")
    run = platform.client.run(version, wait=True)
    step = platform.client.runs.get(run.run_id).steps["fail"]
    assert (run.state, step.attempts, step.error.type) == ("failed", 2, "ZeroDivisionError")
    assert "return 1 / zero" in step.error.traceback


def test_the_result_of_a_pod_is_cached(platform: Platform) -> None:
    version = platform.register("cached_on_argo", CACHED, "cached")
    states = [platform.client.run(version, wait=True) for _ in range(2)]
    steps = [platform.client.runs.get(run.run_id).steps["make"] for run in states]
    assert [step.cache.hit for step in steps] == [False, True]


def test_the_training_example_runs_in_pods(platform: Platform) -> None:
    image = os.environ.get("PENSTOCK_TEST_TRAINING_IMAGE")
    if not image:
        pytest.skip(
            "PENSTOCK_TEST_TRAINING_IMAGE is not set: an image with scikit-learn, pandas, pyarrow and matplotlib"
        )
    platform.configure(image=image, resources={"requests": {"cpu": "10m"}, "limits": {"memory": "1Gi"}})
    version = platform.client.pipelines.register(f"{EXAMPLES / 'training'}:training")
    run = platform.client.run(version, wait=True)
    assert run.state == "succeeded", run
    assert sorted(run.outputs) == ["metrics", "model", "report"]
