"""Pipelines inside a pipeline on the real platform: keys with `/` work in every command, for every kind of result."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock import Client
from penstock_testkit.environment import user_environment

PENSTOCK = str(Path(sys.executable).parent / "penstock")

FLOWS = """
from pathlib import Path
from typing import NamedTuple

from penstock import context, pipeline, step

class Prepared(NamedTuple):
    low: list[int]
    high: list[int]
    report: Path

@step
def numbers(n: int) -> list[int]:
    return list(range(n))

@step
def divide(values: list[int], at: int) -> Prepared:
    print(f"dividing at {at} in {context().step}")
    context().log_metric("at", at)
    report = Path("report.txt")
    report.write_text(f"{context().step}: {at}")
    return Prepared([v for v in values if v < at], [v for v in values if v >= at], report)

@step(retries=1)
def check(values: list[int]) -> int:
    if context().attempt == 1:
        raise ValueError("once")
    return len(values)

@pipeline
def checked(values: list[int]):
    return {"count": check(values)}

@pipeline
def features_with_a_rather_long_name(values: list[int], at: int = 2) -> Prepared:
    parts = divide(values, at)
    checked(parts.low)
    return parts

@step
def total(values: list[int], counts: dict[str, int]) -> int:
    return sum(values) + sum(counts.values())

@step
def read(report: Path) -> str:
    return report.read_text()

@pipeline
def outer(n: int = 6):
    values = numbers(n)
    first = features_with_a_rather_long_name(values)
    second = features_with_a_rather_long_name(values, at=n).after(first)
    count = checked(second.low)
    return {"total": total(first.high, count), "report": read(second.report), "low": first.low}
"""
LONG = "features_with_a_rather_long_name"


class Workspace:
    """A folder with a user's file where `penstock up` runs a platform."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**user_environment(), "XDG_CACHE_HOME": str(folder / "cache"), "COLUMNS": "140"}
        (folder / "flows.py").write_text(FLOWS)

    def call(self, *arguments: str) -> str:
        done = subprocess.run(
            [PENSTOCK, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.call(*arguments, "--json"))


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path)
    with (tmp_path / "up.log").open("w") as log:
        process = subprocess.Popen(
            [PENSTOCK, "up", "--json"],
            cwd=tmp_path,
            env=workspace.environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
    yield workspace
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0, (tmp_path / "up.log").read_text()
    process.stdout.close()


def test_calling_one_pipeline_twice(workspace: Workspace) -> None:
    text = workspace.call("run", "flows.py:outer")
    assert "succeeded  " in text
    assert f"{LONG}-2/divide  running" in text or f"{LONG}-2/divide  succeeded" in text
    chart = text[text.index("outer v1 succeeded") :]
    rows = [line.split()[0] for line in chart.splitlines() if "█" in line]
    assert len(rows) == len(set(rows)) == 8
    # Too long for the chart: call and step stay readable.
    assert [row[-9:] for row in rows if row.endswith("/divide")] == ["me/divide", "-2/divide"]

    run = workspace.json("runs", "show", "last")
    identity = run["run_id"]
    assert run["state"] == "succeeded"
    assert sorted(run["steps"]) == sorted(
        [
            *("numbers", "total", "read", "checked/check"),
            *(f"{LONG}/divide", f"{LONG}/checked/check", f"{LONG}-2/divide", f"{LONG}-2/checked/check"),
        ]
    )
    assert run["steps"][f"{LONG}-2/divide"]["metrics"] == {"at": 6}
    assert run["steps"][f"{LONG}-2/checked/check"]["attempts"] == 2
    # The second call waits for all final steps of the first.
    assert run["steps"][f"{LONG}/checked/check"]["finished_at"] <= run["steps"][f"{LONG}-2/divide"]["started_at"]

    logs = workspace.call("runs", "logs", identity, "--step", f"{LONG}-2/divide")
    assert f"dividing at 6 in {LONG}-2/divide" in logs and "dividing at 2" not in logs
    client = Client(home=workspace.folder / ".penstock")
    assert client.artifacts.load(identity, output="total") == 2 + 3 + 4 + 5 + 6
    assert client.artifacts.load(identity, output="report") == f"{LONG}-2/divide: 6"
    assert client.artifacts.load(identity, step=f"{LONG}/divide", output="high") == [2, 3, 4, 5]
    assert client.artifacts.load(identity, step="checked/check") == 6
    got = workspace.json("artifacts", "get", identity, "--step", f"{LONG}/divide", "-o", "report")
    assert Path(got["path"]).read_text() == f"{LONG}/divide: 2"
