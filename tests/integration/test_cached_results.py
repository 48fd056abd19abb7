"""Cached results on the real services: hits, misses and their reasons, deleted artifacts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock import Client
from penstock.client.views import Cache, Run
from penstock_testkit.servers.cluster import Cluster

PIPELINE = """
from penstock import context, pipeline, step

@step(cache=True, env={"MODE": "fast"})
def blob(size: int, note: str) -> bytes:
    with open(note, "a") as file:
        file.write(context().step + " ")
    context().log_metric("size", size)
    context().log_artifact("a note", "kept")
    return bytes(size)

@step(cache=True)
def length(data: bytes, note: str) -> int:
    with open(note, "a") as file:
        file.write(context().step + " ")
    return len(data)

@pipeline
def measured(note: str, size: int = 1000):
    return length(blob(size, note), note)

@pipeline
def again(note: str, size: int = 1000):
    return blob(size, note)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as running:
        running.source("reused.py", PIPELINE)
        yield running


class RunRecorder:
    """Runs of a pipeline that records the steps that really ran."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.client = Client(url=cluster.url, token=cluster.token)
        self.file = cluster.src / "reused.py"
        self.note = cluster.home.parent / name

    def run(self, pipeline: str = "measured", size: int = 1000, **more: object) -> tuple[Run, list[str]]:
        before = len(self.ran())
        version = self.client.pipelines.register(f"{self.file}:{pipeline}")
        inputs = {"note": str(self.note), "size": size}
        run = self.client.run(version, inputs, **more)  # type: ignore[arg-type]
        return self.client.runs.wait(run.run_id, timeout=60, check=True), self.ran()[before:]

    def ran(self) -> list[str]:
        return self.note.read_text().split() if self.note.exists() else []


def cache(run: Run, step: str) -> Cache:
    found = run.steps[step].cache
    assert found is not None
    return found


@pytest.mark.timeout(240)
def test_equal_calls_hit_the_cache_across_runs_and_pipelines(cluster: Cluster) -> None:
    recorder = RunRecorder(cluster, "equal")
    first, ran = recorder.run()
    assert ran == ["blob", "length"] and not cache(first, "blob").hit
    second, ran = recorder.run()
    assert ran == []
    assert [step.state for step in second.steps.values()] == ["cached", "cached"]
    assert recorder.client.artifacts.load(second.run_id) == 1000
    blob = second.steps["blob"]
    assert blob.outputs == first.steps["blob"].outputs and blob.metrics == {"size": 1000.0}
    assert blob.artifacts == {"a note": {"value": "kept"}} and blob.attempts == 1
    assert (cache(second, "blob").from_run, cache(second, "blob").from_step) == (first.run_id, "blob")
    other, ran = recorder.run("again")
    assert ran == [] and cache(other, "blob").hit
    sentence = recorder.client.runs.explain(second.run_id).steps["blob"].sentence
    assert sentence.startswith(f"reuses the result of step 'blob' of run {first.run_id}, stored ")


@pytest.mark.timeout(240)
def test_cache_misses_report_differences_and_runs_can_disable_the_cache(cluster: Cluster) -> None:
    recorder = RunRecorder(cluster, "other")
    first, _ = recorder.run()
    changed, ran = recorder.run(size=999)
    assert ran == ["blob", "length"]
    report = cache(changed, "blob")
    assert (report.differs, report.from_run) == (("input size",), first.run_id)
    assert cache(changed, "length").differs == ("input data",)
    assert "input 'size' differs" in recorder.client.runs.explain(changed.run_id).steps["blob"].sentence
    refreshed, ran = recorder.run(refresh=["blob"])
    assert ran == ["blob"] and cache(refreshed, "length").hit  # its input has the same content
    assert cache(recorder.run()[0], "blob").from_run == refreshed.run_id
    off, ran = recorder.run(cache="off")
    assert ran == ["blob", "length"] and off.steps["blob"].cache is None
    assert "the cache off" in recorder.client.runs.explain(off.run_id).steps["blob"].sentence
    rerun = recorder.client.runs.rerun(off.run_id, version="same", refresh=["length"], wait=True)
    assert cache(rerun, "blob").hit and not cache(rerun, "length").hit
    refreshed, ran = recorder.run(cache="refresh")
    assert ran[-2:] == ["blob", "length"] and not cache(refreshed, "blob").hit


@pytest.mark.timeout(240)
def test_a_result_with_a_deleted_artifact_is_recomputed(cluster: Cluster) -> None:
    recorder = RunRecorder(cluster, "gone")
    first, _ = recorder.run(size=12345)
    sha256 = first.steps["blob"].outputs["result"]["artifact"]["sha256"]
    Path(cluster.home / "artifacts" / "sha256" / sha256[:2] / sha256).unlink()
    again, ran = recorder.run(size=12345)
    assert ran == ["blob"]
    assert cache(again, "blob").note == f"the cached result refers to a missing artifact: {sha256[:12]}"
    assert cache(again, "length").hit


@pytest.mark.timeout(240)
def test_changed_code_misses_the_cache(cluster: Cluster) -> None:
    recorder = RunRecorder(cluster, "code")
    cluster.source("reused2.py", PIPELINE)
    recorder.file = cluster.src / "reused2.py"
    recorder.run()
    cluster.source("reused3.py", PIPELINE.replace("return len(data)", "return len(data) + 1"))
    recorder.file = cluster.src / "reused3.py"
    run, ran = recorder.run()
    assert ran == ["blob", "length"]  # another module is another step
    assert recorder.client.artifacts.load(run.run_id) == 1001
    assert cache(run, "length").differs == ()
