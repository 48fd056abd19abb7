"""The embedded platform between two commands: shared, replaced when it is stale, stopped when it is idle, killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from penstock import Client
from penstock.client import embedded, platform
from penstock.client.platform import Address
from penstock_testkit.environment import user_environment

PENSTOCK = str(Path(sys.executable).parent / "penstock")
IDLE = "300"
SETTINGS = {"PENSTOCK_IDLE": IDLE, "PENSTOCK_ACK_WAIT": "1.5", "PENSTOCK_GRACE": "1", "PENSTOCK_DRAIN": "0.5"}

FLOWS = """
import os
import time
from pathlib import Path

from penstock import pipeline, step

@step
def threads() -> str:
    return os.environ.get("OMP_NUM_THREADS", "")

@step
def wait(gate: str) -> int:
    Path(gate + ".started").touch()
    while not Path(gate).exists():
        time.sleep(0.02)
    return 1

@pipeline
def quick():
    return threads()

@pipeline
def gated(gate: str):
    return wait(gate)
"""


@dataclass(frozen=True)
class Project:
    """A folder with a pipeline and its state folder."""

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / ".penstock"

    @property
    def gate(self) -> Path:
        return self.folder / "gate"

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Start a command; embedded platforms stay for `IDLE` seconds unless `variables` says otherwise."""
        return subprocess.Popen(
            [PENSTOCK, *arguments],
            cwd=self.folder,
            env={**user_environment(), **SETTINGS, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, *arguments: str, code: int = 0, **variables: str) -> tuple[str, str]:
        """Run a command; return what it writes to standard output and standard error."""
        process = self.start(*arguments, **variables)
        out, error = process.communicate(timeout=120)
        assert process.returncode == code, f"{arguments}: {process.returncode}\n{out}\n{error}"
        return out, error

    def json(self, *arguments: str, **variables: str) -> Any:
        return json.loads(self.call(*arguments, "--json", code=0, **variables)[0])

    def running(self) -> Address:
        """Return the platform that runs."""
        found = platform.find(self.home)
        assert found is not None and found.pid is not None
        return found

    def gated(self) -> str:
        """Submit a run that waits for its gate; return its id when its step runs."""
        run_id = self.json("run", "flows.py:gated", "-p", f"gate={self.gate}", "--detach")["run_id"]
        until(Path(f"{self.gate}.started").exists)
        return run_id

    def finished(self, run_id: str) -> str:
        """Open the gate, and return the state of the run at its end."""
        self.gate.touch()
        return Client(home=self.home).runs.wait(run_id, timeout=60).state


def until(reached: Callable[[], bool], timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    (tmp_path / "flows.py").write_text(FLOWS)
    made = Project(tmp_path)
    yield made
    running = platform.find(made.home)
    if running is not None:
        embedded.stop(made.home, running)


def test_later_commands_use_the_platform_of_the_first(project: Project) -> None:
    first = project.json("run", "flows.py:quick")
    pid = project.running().pid
    assert project.json("run", "flows.py:quick")["run_id"] != first["run_id"]
    assert project.json("runs", "show", first["run_id"])["state"] == "succeeded"
    assert len(project.json("runs", "list")) == 2
    assert project.running().pid == pid
    out, _ = project.call("down")
    assert f"process {pid}" in out and not platform.is_locked(project.home)
    assert "no platform is running" in project.call("down")[1]


def test_it_stops_when_nothing_has_used_it_for_the_idle_time(project: Project) -> None:
    project.call("run", "flows.py:quick", PENSTOCK_IDLE="4")
    began = time.monotonic()
    for _ in range(4):  # requests without a lock keep it up, too
        Client(home=project.home).runs.list()
        time.sleep(1.2)
    assert platform.is_locked(project.home)
    until(lambda: not platform.is_locked(project.home))
    assert time.monotonic() - began > 4
    assert "platform stopped" in platform.log_tail(project.home)


def test_with_an_idle_time_of_zero_it_stops_with_its_command(project: Project) -> None:
    project.call("run", "flows.py:quick", PENSTOCK_IDLE="0")
    until(lambda: not platform.is_locked(project.home))


def test_an_active_run_keeps_it_up_without_a_command(project: Project) -> None:
    run_id = project.json("run", "flows.py:gated", "-p", f"gate={project.gate}", "--detach", PENSTOCK_IDLE="0.5")[
        "run_id"
    ]
    pid = project.running().pid
    time.sleep(2.5)  # several times the idle time
    assert project.running().pid == pid
    assert project.finished(run_id) == "succeeded"
    until(lambda: not platform.is_locked(project.home))


@pytest.mark.parametrize("victim", ["platform", "nats"])
def test_after_a_kill_the_next_command_starts_a_new_one(project: Project, victim: str) -> None:
    project.call("run", "flows.py:quick")
    note = json.loads((project.home / "platform.json").read_text())
    os.kill(note["pid" if victim == "platform" else "nats_pid"], signal.SIGKILL)
    # The address of the killed one is still there, whose process may have a number that is in use again.
    if victim == "platform":
        (project.home / "platform.json").write_text(json.dumps(note | {"pid": os.getpid()}))
    assert project.json("run", "flows.py:quick")["state"] == "succeeded"
    assert len(project.json("runs", "list")) == 2


def test_a_killed_command_leaves_its_run_and_the_platform_to_later_ones(project: Project) -> None:
    process = project.start("run", "flows.py:gated", "-p", f"gate={project.gate}")
    until(Path(f"{project.gate}.started").exists)
    pid = project.running().pid
    process.kill()
    process.communicate()
    run_id = project.json("runs", "list")[0]["run_id"]
    assert project.running().pid == pid and project.finished(run_id) == "succeeded"


def test_changed_settings_and_variables_of_steps_start_a_new_one(project: Project) -> None:
    assert project.json("run", "flows.py:quick", OMP_NUM_THREADS="1")["outputs"] == {"result": "1"}
    first = project.running().pid
    assert project.json("run", "flows.py:quick", OMP_NUM_THREADS="2")["outputs"] == {"result": "2"}
    second = project.running().pid
    assert second != first
    project.call("runs", "list", OMP_NUM_THREADS="3")  # it runs no steps
    project.call("run", "flows.py:quick", OMP_NUM_THREADS="2", UNRELATED="x", COLUMNS="99")
    assert project.running().pid == second
    project.call("runs", "list", PENSTOCK_SLOTS="1")
    assert project.running().pid != second


def test_another_version_starts_a_new_one_or_is_refused(project: Project) -> None:
    project.call("run", "flows.py:quick")
    _install_another_version(project)
    before = project.running().pid
    assert project.json("run", "flows.py:quick")["state"] == "succeeded"
    assert project.running().pid != before
    run_id = project.gated()
    _install_another_version(project)
    assert "another version of Penstock" in project.call("runs", "list", code=3)[1]
    assert project.finished(run_id) == "succeeded"


def _install_another_version(project: Project) -> None:
    note = json.loads((project.home / "platform.json").read_text())
    note["launch"]["the version of Penstock"] = "another"
    (project.home / "platform.json").write_text(json.dumps(note))


def test_commands_at_once_share_one_even_with_other_variables(project: Project) -> None:
    processes = [project.start("run", "flows.py:quick", "--json") for _ in range(3)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert {json.loads(out)["state"] for out, _ in outputs} == {"succeeded"}
    assert (project.home / "platform.log").read_text().count("platform is up") == 1
    run_id = project.gated()
    _, error = project.call("run", "flows.py:quick", OMP_NUM_THREADS="7")
    assert "is in use" in error and "OMP_NUM_THREADS" in error
    assert (project.home / "platform.log").read_text().count("platform is up") == 1
    assert project.finished(run_id) == "succeeded"
    # Nothing uses it any more: the two commands at once agree on one new platform.
    processes = [project.start("run", "flows.py:quick", "--json", OMP_NUM_THREADS="7") for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [json.loads(out)["outputs"]["result"] for out, _ in outputs] == ["7", "7"]
    assert (project.home / "platform.log").read_text().count("platform is up") == 2


def test_down_and_up_respect_commands_and_keep_runs(project: Project) -> None:
    follower = project.start("run", "flows.py:gated", "-p", f"gate={project.gate}", "--json")
    until(Path(f"{project.gate}.started").exists)
    assert "other commands use the embedded platform" in project.call("down", code=3)[1]
    assert "a command uses the embedded platform" in project.call("up", code=3)[1]
    follower.send_signal(signal.SIGINT)  # cancels the run
    out, _ = follower.communicate(timeout=60)
    assert json.loads(out)["state"] == "cancelled"
    Path(f"{project.gate}.started").unlink()
    run_id = project.gated()
    assert "1 active run will continue" in project.call("down")[1]
    project.gate.touch()
    # `up` replaces an embedded platform that nothing uses, and goes on with the run.
    project.call("runs", "list")
    up = project.start("up", "--json")
    try:
        assert up.stdout is not None and up.stdout.readline() == "{\n"
        until(lambda: (running := platform.find(project.home)) is not None and running.pid == up.pid)
        assert Client(home=project.home).runs.wait(run_id, timeout=60).state == "succeeded"
        assert not project.running().embedded
    finally:
        project.call("down")
        up.communicate(timeout=60)


def test_leaving_a_run_with_ctrl_c_lets_it_continue(project: Project) -> None:
    follower = project.start("run", "flows.py:gated", "-p", f"gate={project.gate}")
    until(Path(f"{project.gate}.started").exists)
    pid = project.running().pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)  # the platform cannot cancel the run between the two
    try:
        follower.send_signal(signal.SIGINT)
        time.sleep(0.3)
        follower.send_signal(signal.SIGINT)
        _, error = follower.communicate(timeout=60)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert follower.returncode == 130 and "the run continues" in error
    assert project.running().pid == pid


def test_a_platform_that_hangs_can_be_stopped(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.call("run", "flows.py:quick")
    running = project.running()
    assert running.pid is not None
    os.kill(running.pid, signal.SIGSTOP)
    monkeypatch.setattr(embedded, "STOP_TIMEOUT", 0.5)
    embedded.stop(project.home, running)
    assert project.json("run", "flows.py:quick")["state"] == "succeeded"


def test_a_platform_whose_folder_was_emptied_ends_so_that_a_new_one_can_start(project: Project) -> None:
    project.call("run", "flows.py:quick")
    pid = project.running().pid
    for path in project.home.iterdir():
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    run = project.json("run", "flows.py:quick")
    assert run["state"] == "succeeded"
    assert project.running().pid != pid
    # NATS may write while the folder is emptied, so that something of the first run is left.
    assert run["run_id"] in [one["run_id"] for one in project.json("runs", "list")]


def test_the_platform_closes_the_files_of_the_command_that_started_it(project: Project) -> None:
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [PENSTOCK, "run", "flows.py:quick", "--quiet"],
        cwd=project.folder,
        env={**user_environment(), **SETTINGS},
        pass_fds=[writing],
    )
    os.close(writing)
    assert process.wait(120) == 0
    assert os.read(reading, 1) == b"", "the pipe is closed while the platform runs"
    assert platform.is_locked(project.home)
    os.close(reading)
