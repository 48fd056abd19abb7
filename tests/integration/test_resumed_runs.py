"""Runs that reuse results of earlier runs, on the real services: which steps rerun, and which do not."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock import Client
from penstock.client.views import Run
from penstock.errors import RefusedError
from penstock_testkit.servers.cluster import Cluster

PIPELINES = """
from pathlib import Path

import pandas as pd

from penstock import ask, context, pipeline, step, when

def note(folder: str) -> None:
    with open(Path(folder) / "ran", "a") as file:
        file.write(context().step + "\\n")

@step
def load(folder: str, rows: int) -> pd.DataFrame:
    note(folder)
    return pd.DataFrame({"a": range(rows), "b": "x"})

@step
def double(folder: str, table: pd.DataFrame) -> pd.DataFrame:
    note(folder)
    return table.assign(a=table["a"] * 2)

@step
def total(folder: str, table: pd.DataFrame, offset: int) -> int:
    note(folder)
    if not (Path(folder) / "ready").exists():
        raise FileNotFoundError("not ready")
    return int(table["a"].sum()) + offset

@step
def tell(folder: str, number: int, table: pd.DataFrame) -> str:
    note(folder)
    return f"{number} of {len(table)}"

@pipeline
def four(folder: str, rows: int = 5, offset: int = 0):
    table = double(folder, load(folder, rows))
    return tell(folder, total(folder, table, offset), table)

@step
def numbers(folder: str) -> list[int]:
    note(folder)
    return list(range(20))

@step
def square(folder: str, n: int) -> dict:
    note(folder)
    if n == 13 and not (Path(folder) / "ready").exists():
        raise ValueError("an unlucky number")
    return {"n": n * n, "text": "x" * 300}

@step
def add(folder: str, all: list[dict]) -> int:
    note(folder)
    return sum(one["n"] for one in all)

@step
def late(folder: str, n: int) -> int:
    note(folder)
    if not (Path(folder) / "later").exists():
        raise ValueError("not yet")
    return n

@pipeline
def squares(folder: str):
    all = square.partial(folder=folder).map(n=numbers(folder))
    n = add(folder, all)
    with when(all[3]["n"] == 9):
        return late(folder, n)
"""


class RunRecorder:
    """Runs of pipelines that record in a folder which steps really ran."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.client = Client(url=cluster.url, token=cluster.token)
        self.file = cluster.src / "resumed.py"
        self.folder = cluster.home.parent / name
        self.folder.mkdir()

    def run(self, pipeline: str) -> tuple[Run, Counter[str]]:
        version = self.client.pipelines.register(f"{self.file}:{pipeline}")
        run = self.client.run(version, {"folder": str(self.folder)})
        return self.wait(run)

    def wait(self, run: Run) -> tuple[Run, Counter[str]]:
        over = self.client.runs.wait(run.run_id, timeout=100)
        note = self.folder / "ran"
        ran = Counter(note.read_text().split() if note.exists() else [])
        note.unlink(missing_ok=True)
        return over, ran


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as running:
        running.source("resumed.py", PIPELINES)
        yield running


@pytest.mark.timeout(240)
def test_succeeded_steps_are_not_rerun(cluster: Cluster) -> None:
    recorder = RunRecorder(cluster, "four")
    first, ran = recorder.run("four")
    assert first.state == "failed" and set(ran) == {"load", "double", "total"}
    (recorder.folder / "ready").touch()

    asked = recorder.client.runs.resume(first.run_id)
    assert asked.resumed is not None
    assert (asked.resumed.from_run, asked.resumed.steps, asked.resumed.items) == (first.run_id, 2, {})
    assert asked.resumed.rerun_steps == {
        "total": "it failed in the earlier run",
        "tell": "its upstream step 'total' runs again",
    }
    second, ran = recorder.wait(asked)
    assert second.succeeded and ran == {"total": 1, "tell": 1}
    assert second.outputs["result"] == {"value": "20 of 5"}
    assert (second.trigger["type"], second.trigger["parent"]) == ("resume", first.run_id)
    assert second.steps["double"].state == "cached" and second.steps["double"].from_run == first.run_id
    assert second.steps["double"].outputs == first.steps["double"].outputs
    assert list(recorder.client.artifacts.load(second.run_id, step="double")["a"]) == [0, 2, 4, 6, 8]
    why = recorder.client.runs.explain(second.run_id).steps
    assert why["load"].sentence == f"reused its result from run {first.run_id}"

    # Only steps that read a changed input rerun; reused results refer to the run that computed them.
    third, ran = recorder.wait(recorder.client.runs.resume(second.run_id, inputs={"offset": 100}))
    assert third.succeeded and ran == {"total": 1, "tell": 1}
    assert third.outputs["result"] == {"value": "120 of 5"}
    assert third.steps["load"].from_run == first.run_id
    fourth, ran = recorder.wait(recorder.client.runs.resume(third.run_id, inputs={"rows": 3}))
    assert fourth.outputs["result"] == {"value": "106 of 3"} and len(ran) == 4
    fifth, ran = recorder.wait(recorder.client.runs.resume(third.run_id))
    assert fifth.succeeded and ran == {} and fifth.outputs == third.outputs
    sixth, ran = recorder.wait(recorder.client.runs.resume(third.run_id, from_step="double"))
    assert sixth.outputs == third.outputs and set(ran) == {"double", "total", "tell"}
    assert sixth.trigger["from"] == "double"
    # A plain rerun of a resumed run reuses nothing.
    _, ran = recorder.wait(recorder.client.runs.rerun(third.run_id))
    assert len(ran) == 4


@pytest.mark.timeout(240)
def test_only_failed_items_of_a_mapped_step_are_rerun(cluster: Cluster) -> None:
    recorder = RunRecorder(cluster, "squares")
    first, ran = recorder.run("squares")
    assert first.state == "failed" and ran["square[13]"] == 1 and "add" not in ran
    (recorder.folder / "ready").touch()
    asked = recorder.client.runs.resume(first.run_id)
    assert asked.resumed is not None
    assert asked.resumed.steps == 1 and asked.resumed.items == {"square": 19}
    second, ran = recorder.wait(asked)
    assert second.state == "failed" and ran == {"square[13]": 1, "add": 1, "late": 1}
    # A resumed run is resumed: its mapped step is reused completely, with items of two runs.
    (recorder.folder / "later").touch()
    asked = recorder.client.runs.resume(second.run_id, idempotency_key="third")
    third, ran = recorder.wait(asked)
    assert third.succeeded and ran == {"late": 1}, (third.error, ran)
    assert third.outputs["result"] == {"value": sum(n * n for n in range(20))}
    assert [one["n"] for one in recorder.client.artifacts.load(third.run_id, step="square")] == [
        n * n for n in range(20)
    ]
    again = recorder.client.runs.resume(second.run_id, idempotency_key="third")
    assert again.run_id == third.run_id and not again.created
    assert again.resumed is not None and (again.resumed.steps, again.resumed.items) == (3, {})
    fourth, ran = recorder.wait(recorder.client.runs.resume(third.run_id, from_step="add"))
    assert fourth.outputs == third.outputs and ran == {"add": 1, "late": 1}


@pytest.mark.timeout(240)
def test_invalid_resumes_are_rejected(cluster: Cluster) -> None:
    recorder = RunRecorder(cluster, "refused")
    first, _ = recorder.run("four")
    with pytest.raises(RefusedError, match="has no step 'doubel' to resume from") as refused:
        recorder.client.runs.resume(first.run_id, from_step="doubel")
    assert refused.value.status == 422
    (cluster.src / "asking.py").write_text(
        "from penstock import ask, pipeline\n\n"
        "@pipeline\ndef asking():\n    return ask('go on?', choices=['yes', 'no'])\n"
    )
    version = recorder.client.pipelines.register(f"{cluster.src / 'asking.py'}:asking")
    waits = recorder.client.run(version)
    with pytest.raises(RefusedError, match="has not finished") as refused:
        recorder.client.runs.resume(waits.run_id)
    assert refused.value.status == 409
    recorder.client.runs.cancel(waits.run_id)


@pytest.mark.timeout(240)
def test_resuming_with_another_version_reruns_changed_steps(cluster: Cluster) -> None:
    recorder = RunRecorder(cluster, "versions")
    text = PIPELINES.replace("def four", "def fours")
    recorder.file = cluster.src / "versions.py"
    recorder.file.write_text(text)
    first, _ = recorder.run("fours")
    (recorder.folder / "ready").touch()
    recorder.file.write_text(text.replace('"a"] * 2', '"a"] * 30'))
    sys.modules.pop("versions", None)  # as in another process
    recorder.client.pipelines.register(f"{recorder.file}:fours")
    asked = recorder.client.runs.resume(first.run_id, version="latest")
    assert asked.resumed is not None and asked.resumed.rerun_steps["double"] == "its code or its environment changed"
    second, ran = recorder.wait(asked)
    assert second.outputs["result"] == {"value": "300 of 5"} and set(ran) == {"double", "total", "tell"}


@pytest.mark.timeout(240)
def test_a_result_with_a_deleted_artifact_is_recomputed(cluster: Cluster) -> None:
    recorder = RunRecorder(cluster, "gone")
    (recorder.folder / "ready").touch()
    version = recorder.client.pipelines.register(f"{recorder.file}:four")
    first, _ = recorder.wait(recorder.client.run(version, {"folder": str(recorder.folder), "rows": 77}))
    sha256 = first.steps["load"].outputs["result"]["artifact"]["sha256"]
    for path in Path(cluster.home).rglob(f"*{sha256[4:]}*"):
        path.unlink()
    asked = recorder.client.runs.resume(first.run_id)
    assert asked.resumed is not None
    assert asked.resumed.rerun_steps["load"] == "an artifact of its result is no longer in the store"
    second, ran = recorder.wait(asked)
    assert second.outputs == first.outputs and len(ran) == 4
