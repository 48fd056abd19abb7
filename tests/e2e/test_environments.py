"""Environments that a pipeline declares, from the command to the steps, with an index on loopback."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock import Client
from penstock.client import platform
from penstock.errors import RefusedError
from penstock_testkit.environment import user_environment
from penstock_testkit.servers.package_index import PackageIndex

PENSTOCK = str(Path(sys.executable).parent / "penstock")

FLOW = """
import subprocess
import sys

from penstock import Environment, pipeline, step

INDEX = {index!r}
old = Environment("old", ["tools<2"], index=INDEX)
new = Environment("new", "requirements.txt", index=INDEX)
NOTE = ""


def version(command: list[str]) -> str:
    code = "import tools; print(tools.VERSION)"
    return subprocess.run([*command, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@step(environment=old)
def first() -> list[str]:
    import tools
    return [tools.VERSION, version(["python"])]


@step(environment=new)
def second(before: list[str]) -> list[str]:
    import multiprocessing
    import tools
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        spawned = pool.apply(version, ([sys.executable],))
    return [*before, tools.VERSION, spawned]


@step
def own(before: list[str]) -> list[str]:
    try:
        import tools
    except ImportError:
        return [*before, "none"]
    return [*before, tools.VERSION]


@pipeline
def flow() -> list[str]:
    return own(second(first()))
"""


class Workspace:
    """A project with its platform."""

    def __init__(self, folder: Path, index: PackageIndex) -> None:
        self.folder = folder
        self.index = index
        self.environment = {
            **user_environment(),
            "PENSTOCK_HOME": str(folder / "home"),
            "UV_CACHE_DIR": str(folder / "uv-cache"),
            "UV_HTTP_RETRIES": "0",
            "COLUMNS": "140",
        }
        (folder / "flow.py").write_text(FLOW.format(index=index.url))
        (folder / "requirements.txt").write_text("tools  # the newest\n")
        self.process = self.up()

    def up(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [PENSTOCK, "up", "--port", "0"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 90
        while platform.find(self.folder / "home") is None:
            assert time.monotonic() < deadline and process.poll() is None, "the platform did not start"
            time.sleep(0.2)
        return process

    def call(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [PENSTOCK, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def edit(self, before: str, after: str, name: str = "flow.py") -> None:
        file = self.folder / name
        assert before in file.read_text()
        file.write_text(file.read_text().replace(before, after))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with PackageIndex() as index:
        for version in ("1.0", "2.0"):
            index.add("tools", version, requires=("base",))
        index.add("base", "1.5")
        made = Workspace(tmp_path_factory.mktemp("environments"), index)
        yield made
        made.process.send_signal(signal.SIGTERM)
        made.process.wait(60)


def test_steps_run_in_their_own_environments(workspace: Workspace) -> None:
    done = workspace.call("run", "flow.py", "--json")
    assert json.loads(done.stdout)["outputs"]["result"] == ["1.0", "1.0", "2.0", "2.0", "none"]
    assert "building environment 'old'" in done.stderr and "+ tools==1.0" in done.stderr
    shown = json.loads(workspace.call("env", "show", "flow@1", "--json").stdout)
    assert shown["old"]["packages"] == {"base": "1.5", "tools": "1.0"}
    lock = workspace.call("env", "show", "flow@1", "--lock", "new").stdout
    assert "tools==2.0 \\\n    --hash=sha256:" in lock
    debugged = workspace.call("debug", "last", "second").stderr
    assert f"environments/{shown['new']['digest']}/bin/python" in debugged


def test_an_edit_of_the_code_builds_nothing_and_one_of_the_requirements_does(workspace: Workspace) -> None:
    workspace.call("register", "flow.py")
    downloads = len(workspace.index.downloads)
    workspace.edit('NOTE = ""', 'NOTE = "edited"')
    done = workspace.call("register", "flow.py")
    assert "building" not in done.stderr and len(workspace.index.downloads) == downloads
    before = done.stdout.split("flow v")[1].split()[0]
    workspace.index.add("extra", "1.0")
    workspace.edit("tools", "extra\ntools", "requirements.txt")
    done = workspace.call("register", "flow.py")
    assert "building environment 'new'" in done.stderr and "building environment 'old'" not in done.stderr
    after = done.stdout.split("flow v")[1].split()[0]
    changes = json.loads(workspace.call("env", "diff", f"flow@{before}", f"flow@{after}", "--json").stdout)
    assert changes == [{"environment": "new", "package": "extra", "before": "", "after": "1.0"}]


def test_newer_versions_are_found_when_asked_for(workspace: Workspace) -> None:
    workspace.call("register", "flow.py")
    workspace.index.add("base", "1.6")
    assert "building" not in workspace.call("register", "flow.py").stderr
    changes = json.loads(workspace.call("env", "update", "flow.py", "--json").stdout)
    assert {"environment": "old", "package": "base", "before": "1.5", "after": "1.6"} in changes
    workspace.call("register", "flow.py")
    assert json.loads(workspace.call("env", "show", "flow", "--json").stdout)["old"]["packages"]["base"] == "1.6"


def test_an_environment_that_cannot_be_resolved_is_one_clear_error(workspace: Workspace) -> None:
    broken = workspace.folder / "broken.py"
    broken.write_text((workspace.folder / "flow.py").read_text().replace("tools<2", "tools>=7"))
    done = workspace.call("run", "broken.py", code=2)
    assert "environment 'old' cannot be built: No solution found" in done.stderr
    assert "tools>=7" in done.stderr and "Traceback" not in done.stderr
    (workspace.folder / "broken.py").write_text(broken.read_text().replace('"tools>=7"', '"-e ."'))
    assert (
        "broken.py:8: environment 'old': requirement '-e .' is an option"
        in workspace.call("run", "broken.py", code=2).stderr
    )


def test_builds_that_finish_are_events(workspace: Workspace) -> None:
    """Those of the tests before: one that was built, and one that cannot be."""
    found = json.loads(workspace.call("events", "list", "--type", "penstock.build.*", "--json").stdout)
    assert {("old", "succeeded"), ("new", "succeeded"), ("old", "failed")} <= {
        (event["subject"], event["data"]["state"]) for event in found
    }
    assert len({event["id"] for event in found}) == len(found)


def test_an_environment_that_is_not_on_this_machine_is_installed_for_the_step(workspace: Workspace) -> None:
    done = json.loads(workspace.call("run", "flow.py", "--json").stdout)
    workspace.process.send_signal(signal.SIGTERM)
    workspace.process.wait(60)
    shutil.rmtree(workspace.folder / "home" / "environments")
    workspace.process = workspace.up()
    again = json.loads(workspace.call("runs", "rerun", done["run_id"], "--json").stdout)
    assert again["outputs"] == done["outputs"]


def test_warm_workers_run_in_the_environment(workspace: Workspace) -> None:
    (workspace.folder / "single.py").write_text(
        (workspace.folder / "flow.py")
        .read_text()
        .replace(
            "def flow() -> list[str]:\n    return own(second(first()))",
            "def single() -> list[str]:\n    return first()",
        )
    )
    workspace.call("register", "single.py")
    client = Client(home=workspace.folder / "home")
    endpoint = {"mode": "low_latency", "triggers": [{"kind": "endpoint", "name": "endpoint"}]}
    client.deployments.apply("fast", {"pipeline": "single", **endpoint})
    assert client.endpoints.call("fast", {}) == ["1.0", "1.0"]
    with pytest.raises(RefusedError, match="run in the environments new, none, old"):
        client.deployments.apply("mixed", {"pipeline": "flow", **endpoint})


def test_a_build_survives_the_kill_of_the_platform(workspace: Workspace) -> None:
    workspace.index.add("slow", "1.0")
    (workspace.folder / "slow.py").write_text(
        (workspace.folder / "flow.py").read_text().replace('"tools<2"', '"slow", "tools<2"')
    )
    workspace.index.waiting.clear()
    workspace.index.open.clear()
    command = subprocess.Popen(
        [PENSTOCK, "run", "slow.py", "--json"],
        cwd=workspace.folder,
        env=workspace.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert workspace.index.waiting.wait(60)
    workspace.process.kill()
    workspace.process.wait()
    workspace.index.open.set()
    workspace.process = workspace.up()
    out, err = command.communicate(timeout=120)
    assert command.returncode == 0, err
    assert json.loads(out)["outputs"]["result"][:2] == ["1.0", "1.0"]
