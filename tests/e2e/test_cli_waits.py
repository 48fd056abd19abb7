"""Questions, events, deadlines and cancels of single steps, through the command line, on a real platform."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from penstock import Client
from penstock.client import platform
from penstock_testkit.environment import user_environment

PENSTOCK = str(Path(sys.executable).parent / "penstock")

FLOWS = """
import os
import signal
import subprocess
import time
from pathlib import Path

from penstock import ask, pipeline, step, wait_for_event


@step
def note(text: str) -> str:
    return "noted " + text


@pipeline
def publishing():
    return note(ask("Publish?", choices=["yes", "no"]))


@pipeline
def labelling(dataset: str = "wine"):
    return wait_for_event("com.acme.labels.ready", key=dataset)["url"]


@step
def stubborn(folder: str) -> int:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "600"])
    Path(folder, "pids").write_text(f"{os.getpid()} {child.pid}")
    time.sleep(600)
    return 0


@step
def after(value: int) -> int:
    return value


@step
def tidy(folder: str) -> None:
    time.sleep(0.5)
    Path(folder, "tidied").write_text("yes")


@pipeline
def long(folder: str):
    return after(stubborn(folder))


@pipeline(deadline="2s")
def limited(folder: str):
    return stubborn(folder)
"""

T = TypeVar("T")


def until(look: Callable[[], T], within: float = 60.0) -> T:
    """Poll `look` until it returns something."""
    deadline = time.monotonic() + within
    while not (found := look()):
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.05)
    return found


class Workspace:
    """A folder with pipelines and a platform that is up."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "flows.py").write_text(FLOWS)
        self.environment = {
            **user_environment(),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "COLUMNS": "140",
        }

    @property
    def client(self) -> Client:
        return Client(home=self.folder / ".penstock")

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": self.environment}
        return subprocess.Popen([PENSTOCK, *arguments], cwd=self.folder, **{**pipes, **options})

    def call(self, *arguments: str, code: int = 0) -> str:
        process = self.start(*arguments, stderr=subprocess.STDOUT)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == code, output
        return output


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    made = Workspace(tmp_path_factory.mktemp("waits"))
    process = made.start("up", "--json", stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    until(lambda: platform.find(made.folder / ".penstock"))
    yield made
    process.send_signal(signal.SIGINT)
    process.wait(60)


def newest(workspace: Workspace, pipeline: str) -> Any:
    runs = workspace.client.runs.list(pipeline, limit=1)
    return workspace.client.runs.get(runs[0].run_id) if runs else None


def dead(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_questions_are_shown_listed_and_answered(workspace: Workspace) -> None:
    running = workspace.start("run", "flows.py:publishing", "--priority", "7")
    [asked] = until(lambda: workspace.client.questions.list(pipeline="publishing"))
    assert (asked.step, asked.question, asked.choices) == ("ask", "Publish?", ("yes", "no"))
    command = f"penstock questions answer {asked.run_id} ask yes|no"
    assert command in workspace.call("questions", "list") and command in workspace.call("runs", "show", asked.run_id)
    assert "Publish?" in workspace.call("questions", "list", "--run", asked.run_id)
    assert "one of yes, no" in workspace.call("questions", "answer", asked.run_id, "ask", code=2)
    assert "'yes', 'no'" in workspace.call("questions", "answer", asked.run_id, "ask", "maybe", code=2)
    waits = workspace.client.runs.get(asked.run_id).steps["ask"].waits_for
    assert waits is not None and (waits.kind, waits.question) == ("ask", "Publish?")
    links = json.loads(workspace.call("questions", "links", asked.run_id, "ask", "--json"))
    with urllib.request.urlopen(links["choices"]["no"], timeout=30) as page:  # noqa: S310 - our own address
        assert b"Publish?" in page.read()
    output = workspace.call("questions", "answer", asked.run_id, "ask", "yes", "--comment", "fine")
    assert output.strip() == f"step ask of run {asked.run_id} answered: yes"
    output, error = running.communicate(timeout=120)
    assert running.returncode == 0, output + error
    assert output.count(f"asks: Publish? (yes, no) — {command}") == 1
    assert "noted yes" in output
    run = workspace.client.runs.get(asked.run_id)
    assert run.steps["ask"].params["comment"] == "fine" and run.steps["ask"].params["answered_by"]
    assert "already: yes" in workspace.call("questions", "answer", asked.run_id, "ask", "yes")
    assert "already answered 'yes'" in workspace.call("questions", "answer", asked.run_id, "ask", "no", code=2)
    assert "no open questions" in workspace.call("questions", "list")
    requested = next(event for event in workspace.client.runs.events(asked.run_id) if event.kind == "run.requested")
    assert requested.data["priority"] == 7


def test_an_event_may_arrive_before_or_after_the_wait(workspace: Workspace) -> None:
    client = workspace.client
    version = client.pipelines.register(str(workspace.folder / "flows.py") + ":labelling")
    after = client.run(version, {"dataset": "after"})
    until(lambda: client.runs.get(after.run_id).steps["wait_for_event"].waits_for)
    output = workspace.call(
        "events", "send", "com.acme.labels.ready", "--key", "after", "--data", '{"url": "s3://a"}', "--id", "1"
    )
    assert "stored, id 1" in output
    assert client.runs.wait(after.run_id, 60).outputs["result"]["value"] == "s3://a"
    before = client.run(version, {"dataset": "before"})
    sent = client.events.send("com.acme.labels.ready", {"url": "s3://b"}, key="before", id="2")
    assert client.runs.wait(before.run_id, 60).outputs["result"]["value"] == "s3://b"
    again = client.events.send("com.acme.labels.ready", {"url": "s3://c"}, key="before", id="2")
    assert (sent.duplicate, again.duplicate) == (False, True)
    assert "is not JSON" in workspace.call("events", "send", "t", "--data", "{", code=2)


def begin(workspace: Workspace, pipeline: str, folder: Path) -> tuple[Any, list[int]]:
    """A run whose step does not finish by itself, and its processes."""
    client = workspace.client
    folder.mkdir()
    version = client.pipelines.register(f"{workspace.folder / 'flows.py'}:{pipeline}")
    run = client.run(version, {"folder": str(folder)})
    return run, [int(pid) for pid in until(lambda: _text(folder / "pids")).split()]


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_cancelling_one_step_stops_its_processes(workspace: Workspace, tmp_path: Path) -> None:
    run, pids = begin(workspace, "long", tmp_path / "cancelled")
    assert "has no step" in workspace.call("runs", "cancel", run.run_id, "--step", "nothing", code=2)
    output = workspace.call("runs", "cancel", run.run_id, "--step", "stubborn", "--reason", "too slow")
    assert output.strip() == f"step stubborn of run {run.run_id} cancelled"
    ended = workspace.client.runs.wait(run.run_id, 60)
    assert (ended.steps["stubborn"].state, ended.steps["after"].state) == ("cancelled", "skipped")
    until(lambda: all(dead(pid) for pid in pids))
    assert workspace.client.runs.cancel(run.run_id, step="stubborn") == "cancelled"


def test_a_run_past_its_deadline_is_stopped(workspace: Workspace, tmp_path: Path) -> None:
    run, pids = begin(workspace, "limited", tmp_path / "limited")
    ended = workspace.client.runs.wait(run.run_id, 60)
    assert ended.state == "failed" and "deadline" in (ended.error or "")
    until(lambda: all(dead(pid) for pid in pids))
    output = workspace.call("run", "flows.py:publishing", "--deadline", "1", code=1)
    assert "the run did not finish by its deadline" in output
    assert "is not a duration" in workspace.call("run", "flows.py:publishing", "--deadline", "0", code=2)
