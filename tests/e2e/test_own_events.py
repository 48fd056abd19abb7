"""Events of the platform start runs: an artifact that a step stored starts the pipeline that reads it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from penstock import Client
from penstock_testkit.environment import user_environment

PENSTOCK = str(Path(sys.executable).parent / "penstock")

FLOWS = """
from penstock import On, context, pipeline, step


@step
def write(rows: int) -> None:
    context().log_artifact("features", list(range(rows)))
    context().log_artifact("other", 1)


@pipeline
def writing(rows: int = 3):
    write(rows)


@step
def count(table: list[int]) -> int:
    return len(table)


@pipeline
def counting(table: list[int]):
    return count(table)


writing.deploy("writes")
counting.deploy(
    "counts",
    triggers=[On("penstock.artifact.committed.v1", filter="data.name == 'features'", inputs={"table": "data.value"})],
)
"""


def test_an_artifact_starts_the_deployment_that_takes_it(tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text(FLOWS)
    env = {**user_environment(), "PENSTOCK_HOME": str(tmp_path / "home")}

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [PENSTOCK, *arguments]
        found = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)
        assert found.returncode == 0, found.stderr
        return found

    running = subprocess.Popen(
        [PENSTOCK, "up", "--port", "0"], cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True
    )
    try:
        assert running.stdout is not None
        assert "running" in running.stdout.readline()
        call("deploy", "flows.py")
        call("deployments", "run", "writes", "-p", "rows=5")
        client = Client(home=tmp_path / "home")
        deadline = time.monotonic() + 60
        while not (found := client.runs.list("counting")):
            assert time.monotonic() < deadline, client.events.list()
            time.sleep(0.05)
        [run] = found
        assert client.runs.wait(run.run_id, timeout=60).state == "succeeded"
        assert client.artifacts.load(run.run_id) == 5
        [writer] = client.runs.list("writing")
        assert run.trigger["event_id"] == f"{writer.run_id}/write/features"
        traced = call("trace", run.run_id).stdout
        assert traced.index("writing") < traced.index("penstock.artifact.committed.v1") < traced.index("counting")
    finally:
        running.terminate()
        running.communicate(timeout=30)
