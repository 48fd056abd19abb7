"""Runs whose steps are pods: results, logs, metrics, artifacts and errors look as on one machine."""

from __future__ import annotations

from penstock_testkit.servers.kubernetes import Platform

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


def test_a_run_in_pods_has_results_logs_and_metrics(platform: Platform) -> None:
    version = platform.register("numbers_on_argo", PIPELINE, "numbers")
    run = platform.client.run(version, wait=True)
    assert run.state == "succeeded"
