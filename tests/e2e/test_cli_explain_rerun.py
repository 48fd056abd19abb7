"""`penstock runs explain` and `penstock runs rerun` from the user's point of view."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock import Client
from penstock_testkit.environment import user_environment

PENSTOCK = str(Path(sys.executable).parent / "penstock")

FLOWS = """
import time
from pathlib import Path

from penstock import pipeline, step

@step
def number(n: int) -> int:
    return n

@step(retries=1, retry_delay=30)
def fails_slowly(n: int) -> int:
    raise ValueError(f"no {n}s today")

@step
def fails(n: int) -> int:
    raise ValueError(f"no {n}s today")

@step
def total(a: int, b: int) -> int:
    return a + b

@pipeline
def broken(n: int = 4):
    return total(total(number(n), fails(n)), 1)

@pipeline
def retried(n: int = 4):
    return total(number(n), fails_slowly(n))

@step
def size(source: Path, times: int, note: str) -> str:
    return f"{len(source.read_text()) * times} {note}"

@step
def odd(n: int) -> int:
    if n % 2 == 0:
        raise ValueError(f"{n} is even")
    return n

@pipeline
def fanned():
    return odd.with_options(min_success=0.5).map([1, 2, 3, 4])

@pipeline
def sized(source: Path, times: int = 1, note: str = "plain"):
    return size(source, times, note)
"""


class Workspace:
    """A folder with pipelines and a running platform."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.client = Client(home=folder / ".penstock")
        self.environment = {**user_environment(), "XDG_CACHE_HOME": str(folder / "cache"), "COLUMNS": "140"}
        (folder / "flows.py").write_text(FLOWS)
        (folder / "short.txt").write_text("abc")
        (folder / "long.txt").write_text("abcdef")

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": self.environment}
        return subprocess.Popen([PENSTOCK, *arguments], cwd=self.folder, **{**pipes, **options})

    def call(self, *arguments: str, code: int = 0) -> str:
        """Return standard output, or standard error if the command is expected to fail."""
        with self.start(*arguments) as process:
            out, error = process.communicate(timeout=60)
        assert process.returncode == code, f"exit {process.returncode}\n{out}\n{error}"
        return error if code == 2 else out

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.call(*arguments, "--json", code=code))


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A folder where `penstock up` runs a platform for all tests of this module."""
    workspace = Workspace(tmp_path_factory.mktemp("up"))
    with (workspace.folder / "up.log").open("w") as log:
        process = workspace.start("up", "--json", stderr=log)
    assert process.stdout is not None
    assert process.stdout.readline() == "{\n"
    while process.stdout.readline() not in ("}\n", ""):
        pass
    yield workspace
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0, (workspace.folder / "up.log").read_text()
    process.stdout.close()


# --------------------------------------------------------------------------------------------------------- explain


@pytest.fixture(scope="module")
def broken(up: Workspace) -> str:
    return up.json("run", "flows.py:broken", code=1)["run_id"]


def test_explain_gives_a_reason_for_every_step_of_a_failed_run(up: Workspace, broken: str) -> None:
    lines = up.call("runs", "explain", "last").splitlines()
    assert lines[0].startswith("broken v1 failed  run " + broken)
    assert lines[1].split() == ["STEP", "STATE", "SINCE", "REASON"]
    words = {line.split()[0]: line for line in lines[2:]}
    assert list(words) == ["number", "fails", "total", "total-2"]
    assert "attempt 1 succeeded in" in words["number"]
    assert "attempt 1 failed in" in words["fails"] and "ValueError: no 4s today (retries used: 0 of 0" in words["fails"]
    assert "skipped" in words["total"] and "ValueError: no 4s today" in words["total"]
    assert "root cause: step 'fails' failed: ValueError: no 4s today" in words["total-2"]


def test_explaining_one_step_includes_its_causes(up: Workspace, broken: str) -> None:
    lines = up.call("runs", "explain", broken[:20], "total-2").splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["total-2", "total", "fails"]
    whole = up.json("runs", "explain", broken, "total")
    assert whole["state"] == "failed" and list(whole["steps"]) == ["total", "fails"]
    assert whole["steps"]["total"]["caused_by"] == ["fails"]
    error = up.call("runs", "explain", broken, "totle", code=2)
    assert "no step 'totle'; it has: number, fails, total, total-2" in error
    assert "penstock runs list" in up.call("runs", "explain", "k" + "0" * 25, code=2)


def test_explaining_a_delayed_retry_says_when_and_why(up: Workspace) -> None:
    process = up.start("run", "flows.py:retried", "--quiet")
    try:
        deadline = time.monotonic() + 20
        reason: dict[str, Any] = {"sentence": ""}
        while "retry 1 of 1" not in reason["sentence"]:
            assert time.monotonic() < deadline, reason
            time.sleep(0.1)
            newest = up.client.runs.list(pipeline="retried", limit=1)
            if newest:
                reason = up.json("runs", "explain", newest[0].run_id)["steps"]["fails_slowly"]
        assert "ValueError: no 4s today" in reason["sentence"] and " in " in reason["sentence"]
        waiting = up.client.runs.explain(newest[0].run_id).steps["total"]
        assert waiting.state == "waiting" and waiting.caused_by == ("fails_slowly",)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert "Ctrl-C" in up.json("runs", "explain", newest[0].run_id)["steps"]["fails_slowly"]["sentence"]


# ----------------------------------------------------------------------------------------------------------- rerun


def test_a_rerun_uses_the_same_or_changed_inputs(up: Workspace) -> None:
    first = up.json("run", "flows.py:sized", "-p", "source=short.txt", "-p", "times=2", "--label", "team=growth")
    assert first["outputs"] == {"result": "6 plain"}
    again = up.json("runs", "rerun", first["run_id"])
    assert again["run_id"] != first["run_id"] and again["state"] == "succeeded"
    assert again["outputs"] == {"result": "6 plain"}
    run = up.client.runs.get(again["run_id"])
    assert run.labels == {"team": "growth"}
    assert (run.trigger["type"], run.trigger["parent"]) == ("rerun", first["run_id"])

    assert f"rerun of  {first['run_id']}" in up.call("runs", "show", again["run_id"])

    text = up.call("runs", "rerun", again["run_id"][:20], "-p", "source=long.txt", "-p", "note=7")
    assert "size  succeeded" in text and "sized v1 succeeded in" in text and '"12 7"' in text
    error = up.call("runs", "rerun", first["run_id"], "-p", "times=often", code=2)
    assert 'inputs.times: expected int, got "often"' in error
    assert "did you mean 'times'" in up.call("runs", "rerun", first["run_id"], "-p", "time=1", code=2)
    assert "no such file or folder" in up.call("runs", "rerun", first["run_id"], "-p", "source=none.txt", code=2)


def test_a_failing_rerun_shows_the_reason(up: Workspace, broken: str) -> None:
    text = up.call("runs", "rerun", broken, "-p", "n=9", code=1)
    assert "step fails failed: ValueError: no 9s today" in text
    assert 'File "flows.py"' in text
    assert up.call("runs", "rerun", "k" + "0" * 25, code=2).startswith("error: ")


def test_a_rerun_shows_what_a_run_shows(up: Workspace) -> None:
    def shown(*arguments: str) -> list[list[str]]:
        """Return the changes of steps, and the lines of the chart, without times."""
        lines = [line.split() for line in up.call(*arguments).splitlines() if line]
        changes = [line[1:3] for line in lines[1:] if re.match(r"\d\d:", line[0])]
        return sorted(changes + [line[:2] for line in lines if line[0].startswith("odd")])

    run, rerun = shown("run", "flows.py:fanned"), shown("runs", "rerun", "last")
    failed = [["odd[1]", "failed"], ["odd[3]", "failed"]]
    assert run == rerun == sorted([["odd", "running"], *[["odd", "succeeded"], *failed] * 2, ["run", "succeeded"]])
    view = up.client.runs.get(up.client.runs.list("fanned", limit=1)[0].run_id).steps["odd"]
    assert view.items == {"count": 4, "finished": 4, "succeeded": 2, "failed": 2}
    assert view.last_failed is not None and view.last_failed.key in ("odd[1]", "odd[3]")
    assert str(view.last_failed).endswith(f": ValueError: {int(view.last_failed.key[4]) + 1} is even")


def test_a_step_is_shown_with_its_inputs_and_times(up: Workspace) -> None:
    run_id = up.json("run", "flows.py:fanned")["run_id"]
    lines = up.call("runs", "show", run_id, "odd").splitlines()
    assert lines[0].startswith("odd succeeded in ") and f"4/4 items  run {run_id}" in lines[0]
    table = [line.split() for line in lines if line.startswith(("ITEM", "odd["))]
    assert table[0] == ["ITEM", "STATE", "DURATION", "n"]
    rows = [["odd[1]", "failed", "2"], ["odd[3]", "failed", "4"], ["odd[0]", "succeeded", "1"]]
    assert [[row[0], row[1], row[4]] for row in table[1:4]] == rows
    assert table[1][5:] == ["ValueError:", "2", "is", "even"]
    item = up.call("runs", "show", run_id, "odd[3]")
    assert "odd[3] failed" in item and "\ninputs\n  n  4\n" in item and "ValueError: 4 is even" in item
    columns, row = (line.split() for line in item.splitlines() if line.startswith(("ATTEMPT", "1 ")))
    assert columns == ["ATTEMPT", "STATE", "QUEUE", "LOAD", "RUN", "SAVE", "EXECUTOR"] and row[:2] == ["1", "failed"]
    found = up.json("runs", "show", run_id, "odd[0]")
    assert (found["key"], found["inputs"], found["outputs"]) == ("odd[0]", {"n": 1}, {"result": 1})
    assert found["history"][0]["load_seconds"] > 0 and found["history"][0]["queue_seconds"] >= 0
    whole = up.json("runs", "show", run_id, "odd")
    assert [item["inputs"]["n"] for item in whole["items_by_key"].values()] == [1, 2, 3, 4]
    assert "has no step 'odd[4]'" in up.call("runs", "show", run_id, "odd[4]", code=2)
    assert [item.inputs for item in up.client.runs.items(run_id, "odd", "failed")] == [
        {"n": {"value": n}} for n in (2, 4)
    ]
    assert up.client.runs.step(run_id, "odd[0]").history[0].state == "succeeded"


def test_a_rerun_requires_a_version_choice_when_a_newer_one_exists(up: Workspace) -> None:
    code = "from penstock import pipeline, step\n\n@step\ndef tell() -> str:\n    return '{}'\n\n"
    code += "@pipeline\ndef greeting():\n    return tell()\n"
    (up.folder / "greeting.py").write_text(code.format("old"))
    first = up.json("run", "greeting.py")["run_id"]
    assert "no published version" in up.call("runs", "rerun", first, "--version", "latest", code=2)
    assert up.call("register", "greeting.py") == "published greeting v1, which was registered before\n"
    (up.folder / "greeting.py").write_text(code.format("new"))
    assert up.json("run", "greeting.py")["outputs"] == {"result": "new"}
    assert up.json("runs", "rerun", first)["outputs"] == {"result": "old"}
    assert up.call("register", "greeting.py") == "published greeting v2, which was registered before\n"
    error = up.call("runs", "rerun", first, code=2)
    assert "has version 1 of 'greeting', but the latest is 2: pass --version same or --version latest" in error
    assert up.json("runs", "rerun", first, "--version", "same")["outputs"] == {"result": "old"}
    assert up.json("runs", "rerun", first, "--version", "latest")["outputs"] == {"result": "new"}
    assert up.json("runs", "rerun", first, "--version", "2")["outputs"] == {"result": "new"}
    assert "expected a number or one of same, latest" in up.call("runs", "rerun", first, "--version", "new", code=2)


def test_a_detached_rerun_continues_without_the_client(up: Workspace) -> None:
    first = up.json("run", "flows.py:sized", "-p", "source=short.txt")["run_id"]
    asked = up.json("runs", "rerun", first, "--detach")
    assert asked["parent"] == first and asked["state"] == "queued"
    assert up.client.runs.wait(asked["run_id"], timeout=20).outputs == {"result": {"value": "3 plain"}}
    assert up.call("runs", "rerun", first, "--detach").split()[2:4] == ["of", "sized"]
    assert "--detach excludes" in up.call("runs", "rerun", first, "--detach", "--logs", code=2)


def test_reruns_from_python(up: Workspace) -> None:
    first = up.json("run", "flows.py:sized", "-p", "source=short.txt")["run_id"]
    run = up.client.runs.rerun(first, inputs={"source": up.folder / "long.txt"}, wait=True)
    assert run.succeeded and up.client.artifacts.load(run.run_id) == "6 plain"
    key = "once"
    assert (
        up.client.runs.rerun(first, idempotency_key=key).run_id
        == up.client.runs.rerun(first, idempotency_key=key).run_id
    )
