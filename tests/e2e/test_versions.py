"""Versions end to end: experiments, published versions, moved projects."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock import Client
from penstock_testkit.environment import user_environment

PENSTOCK = str(Path(sys.executable).parent / "penstock")

FLOW = """
from helpers import VALUE
from penstock import pipeline, run_pipeline, step

@step
def value() -> str:
    return VALUE

@pipeline
def greeting():
    return value()

@pipeline
def parent():
    return run_pipeline("greeting")
"""


class Workspace:
    """A platform running in `folder`, and projects of two users."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**user_environment(), "PENSTOCK_HOME": str(folder / "home"), "COLUMNS": "140"}
        self.client = Client(home=folder / "home")

    def project(self, name: str, value: str) -> Path:
        root = self.folder / name
        root.mkdir(exist_ok=True)
        (root / "flow.py").write_text(FLOW)
        (root / "helpers.py").write_text(f"VALUE = {value!r}\n")
        return root

    def call(self, *arguments: str | Path, code: int = 0) -> Any:
        done = subprocess.run(
            [PENSTOCK, *map(str, arguments), "--json"],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == code, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout)

    def run(self, source: str) -> int:
        """Run a pipeline; return the number of its version."""
        return self.client.runs.get(self.call("run", source)["run_id"]).version

    def result(self, run_id: str) -> str:
        self.client.runs.wait(run_id, timeout=60, check=True)
        return self.client.artifacts.load(run_id)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path_factory.mktemp("versions"))
    with (workspace.folder / "up.log").open("w") as log:
        process = subprocess.Popen(
            [PENSTOCK, "up", "--json"],
            cwd=workspace.folder,
            env=workspace.environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
    yield workspace
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0, (workspace.folder / "up.log").read_text()
    process.stdout.close()


def eventually(found: Callable[[], Any], timeout: float = 60.0) -> Any:
    limit = time.monotonic() + timeout
    while not (value := found()):
        assert time.monotonic() < limit, "it does not happen"
        time.sleep(0.1)
    return value


def test_an_experiment_run_does_not_change_scheduled_versions(up: Workspace) -> None:
    mine, theirs = up.project("mine", "mine"), up.project("theirs", "theirs")
    tried = up.call("run", theirs / "flow.py:greeting")
    assert up.call("register", mine / "flow.py:greeting")["published"]
    up.call("register", mine / "flow.py:parent")
    (theirs / "helpers.py").write_text("VALUE = 'theirs, later'\n")
    assert up.call("run", theirs / "flow.py:greeting")["outputs"] == {"result": "theirs, later"}

    trigger = {"kind": "cron", "name": "often", "every": 1}
    up.client.deployments.apply("often", {"pipeline": "greeting", "triggers": [trigger]})
    [ticked] = eventually(lambda: up.client.runs.list(trigger="cron", limit=1))
    up.client.deployments.delete("often")
    assert up.result(ticked.run_id) == "mine"
    assert up.result(up.client.run("parent").run_id) == "mine"
    assert up.result(up.client.run("greeting").run_id) == "mine"
    assert up.call("runs", "rerun", tried["run_id"], "--version", "latest")["outputs"] == {"result": "mine"}
    assert up.call("runs", "rerun", tried["run_id"])["outputs"] == {"result": "theirs"}
    listed = up.call("versions", "list", "greeting")
    assert [(one["version"], one["latest"]) for one in listed] == [(3, False), (2, True), (1, False)]
    assert [bool(one["published_by"]) for one in listed] == [False, True, False]


def test_a_project_has_the_same_version_in_any_folder(up: Workspace) -> None:
    first = up.project("first", "here")
    (first / "flow.py").write_text(FLOW.replace("greeting", "moved"))
    number = up.run(f"{first}/flow.py:moved")
    for name, text in (("notes.md", "to do"), ("other.py", "x = 1"), ("data.csv", "1,2")):
        (first / name).write_text(text)
    assert up.run(f"{first}/flow.py:moved") == number
    shutil.copytree(first, up.folder / "elsewhere" / "second")
    again = up.call("register", up.folder / "elsewhere" / "second" / "flow.py:moved")
    assert (again["version"], again["created"]) == (number, False)
    (first / "helpers.py").write_text("VALUE = 'changed'\n")
    assert up.run(f"{first}/flow.py:moved") == number + 1


def test_changing_a_data_file_creates_a_version(up: Workspace) -> None:
    root = up.project("reading", "")
    (root / "flow.py").write_text(FLOW.replace("greeting", "reading"))
    (root / "helpers.py").write_text(
        "from pathlib import Path\nVALUE = (Path(__file__).parent / 'value.txt').read_text()\n"
    )
    for text in ("one", "two"):
        (root / "value.txt").write_text(text)
        assert up.call("run", root / "flow.py:reading")["outputs"] == {"result": text}
    assert [one["version"] for one in up.call("versions", "list", "reading")] == [2, 1]


def test_a_version_with_an_unavailable_environment_reports_missing_packages(up: Workspace) -> None:
    from penstock import bundle, sources
    from penstock_core.environments.installed import Environment

    root = up.project("lacking", "x")
    (root / "flow.py").write_text(FLOW.replace("greeting", "lacking").replace("@step", "@step(retries=5)"))
    prepared = sources.prepare(f"{root / 'flow.py'}:lacking")
    info = bundle.environment_info()
    packages = info["packages"] | {"a-library": "9.1", "numpy": "0.1"}
    digest = Environment(implementation="cpython", version=info["version"], packages=packages).digest()
    environment = info | {"packages": packages, "digest": digest}
    hint = {"python": "/home/ada/venv/bin/python", "folders": {"/home/ada/venv/lib": 1}}
    lacking = sources.PreparedPipeline(prepared.ir, prepared.source, prepared.code, environment, hint, prepared.git)
    version = up.client.pipelines.register(lacking)
    run = up.client.run(version, wait=True)
    step = run.steps["value"]
    assert (run.state, step.attempts) == ("failed", 1)
    assert step.error is not None
    assert step.error.type == "EnvironmentMissing"
    assert "a-library 9.1 is missing; numpy 0.1 is required, it has " in step.error.message
    # The same code registered from an available environment is another version, which runs.
    assert up.run(f"{root}/flow.py:lacking") == version.version + 1
