"""The `penstock` command end to end: real processes, a real platform, real exit codes."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from penstock import Client
from penstock.client import platform
from penstock.errors import NotFoundError
from penstock_core import ids
from penstock_testkit.environment import user_environment

PENSTOCK = str(Path(sys.executable).parent / "penstock")

FLOWS = """
import os
import time
from pathlib import Path
from typing import NamedTuple

from penstock import context, pipeline, step

@step
def numbers(n: int) -> list[int]:
    print("making numbers")
    context().log_metric("count", n)
    return list(range(n))

@step
def total(values: list[int]) -> int:
    return sum(values)

@pipeline
def hello(n: int = 4):
    return total(numbers(n))

class Parts(NamedTuple):
    text: str
    file: Path

@step
def read(source: Path) -> Parts:
    report = Path("report.txt")
    report.write_text("report of " + source.name)
    context().log_artifact("rows", source.read_text().splitlines())
    return Parts(source.read_text() * 20_000, report)

@pipeline
def files(source: Path):
    parts = read(source)
    return {"report": parts.file, "text": parts.text}

@step
def broken(values: list[int]) -> int:
    return helper(values)

def helper(values):
    raise ValueError(f"cannot use [{len(values)}] values")

@step(retries=1)
def dies(values: list[int]) -> int:
    os._exit(3)

@pipeline
def failing(n: int = 2):
    values = numbers(n)
    a = broken(values)
    b = dies(values)
    return total([a, b, total(values)])

@step
def wait(values: list[int]) -> int:
    for i in range(300):
        print("tick", i, flush=True)
        time.sleep(0.05)
    return 0

@pipeline
def slow():
    return wait(numbers(1))

@step
def pause(values: list[int]) -> int:
    time.sleep(3)
    return len(values)

@pipeline
def short():
    return pause(numbers(1))

@step
def wait_for(gate: str) -> int:
    while not Path(gate).exists():
        time.sleep(0.02)
    return 1

@pipeline
def gated(gate: str):
    return wait_for(gate)
"""

WRONG = """
from penstock import pipeline, step

@step
def number() -> int:
    return 1

@step
def shout(text: str) -> str:
    return text.upper()

@pipeline
def wrong_type():
    return shout(number())

@pipeline
def unknown_input():
    return shout(txet="x")

@pipeline
def missing_input():
    return shout()

@pipeline
def right(text: str):
    return shout(text)
"""


@dataclass(frozen=True)
class Workspace:
    """A folder with the user's files and its state folder."""

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / ".penstock"

    def environment(self) -> dict[str, str]:
        return {**user_environment(), "XDG_CACHE_HOME": str(self.folder / "cache"), "COLUMNS": "140"}

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": self.environment()}
        return subprocess.Popen([PENSTOCK, *arguments], cwd=self.folder, **{**pipes, **options})

    def call(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [PENSTOCK, *arguments],
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, (
            f"exit {done.returncode}\n{done.stdout}\n{done.stderr}\n{platform.log_tail(self.home)}"
        )
        assert "Traceback" not in done.stderr or "flows.py" in done.stderr, done.stderr
        return done

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.call(*arguments, "--json", code=code).stdout)

    def gone(self, within: float = 20.0) -> None:
        """Wait until no platform uses the state folder."""
        deadline = time.monotonic() + within
        while platform.is_locked(self.home):
            assert time.monotonic() < deadline, "the platform does not stop"
            time.sleep(0.02)


def make(folder: Path) -> Workspace:
    (folder / "flows.py").write_text(FLOWS)
    (folder / "wrong.py").write_text(WRONG)
    (folder / "rows.csv").write_text("a,b\n1,2\n")
    return Workspace(folder)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    made = make(tmp_path)
    yield made
    if made.home.exists():
        made.gone()


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A folder where `penstock up` runs a platform for all tests of this module."""
    made = make(tmp_path_factory.mktemp("up"))
    with (made.folder / "up.log").open("w") as log:
        process = made.start("up", "--json", stderr=log)
    assert process.stdout is not None
    first = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
    assert first["home"] == str(made.home)
    yield made
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0, (made.folder / "up.log").read_text()
    process.stdout.close()


# -------------------------------------------------------------------------------------------------------- embedded


def test_run_starts_and_stops_an_embedded_platform(workspace: Workspace) -> None:
    done = workspace.call("run", "flows.py:hello", "-p", "n=5")
    lines = done.stdout.splitlines()
    assert re.match(r"\d\d:\d\d:\d\d\.\d{3}  run \w{26} of hello v1, 2 steps$", lines[0])
    states = [line.split()[1:3] for line in lines if re.match(r"\d\d:", line)][1:]
    # A step that finishes at once may have no line for its start.
    assert [state for state in states if state[1] != "running"] == [
        ["numbers", "succeeded"],
        ["total", "succeeded"],
        ["run", "succeeded"],
    ]
    assert "  result  10" in lines and "  numbers  count=5" in lines
    assert any("█" in line and line.startswith("  total") for line in lines)
    assert done.stderr == "" and "\x1b" not in done.stdout
    workspace.gone()
    # Later commands, which start their own platform, can see the run.
    shown = workspace.json("runs", "show", "last")
    assert (shown["state"], shown["outputs"], shown["inputs"]) == ("succeeded", {"result": 10}, {"n": 5})


def test_a_killed_embedded_platform_restarts_and_the_run_succeeds(workspace: Workspace) -> None:
    gate = workspace.folder / "gate"
    # How soon the attempts of a dead executor are redelivered.
    environment = {**workspace.environment(), "PENSTOCK_ACK_WAIT": "1"}
    process = workspace.start("run", "flows.py:gated", "-p", f"gate={gate}", "--json", env=environment)
    address = await_address(workspace)
    assert address.pid is not None and address.embedded
    await_state(Client(home=workspace.home), "wait_for", "running")
    os.kill(address.pid, signal.SIGKILL)
    gate.touch()
    out, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    run = json.loads(out)
    assert run["state"] == "succeeded" and run["outputs"] == {"result": 1}
    assert run["steps"]["wait_for"]["attempts"] == 2


def await_address(workspace: Workspace) -> platform.Address:
    deadline = time.monotonic() + 20
    while (address := platform.find(workspace.home)) is None:
        assert time.monotonic() < deadline, platform.log_tail(workspace.home)
        time.sleep(0.01)
    return address


def await_state(client: Client, step: str, state: str, pipeline: str | None = None) -> str:
    """Wait until the step of the newest run is in a state; return the run's id."""
    deadline = time.monotonic() + 90
    while True:
        for run in client.runs.list(pipeline, limit=1):
            if (view := client.runs.get(run.run_id)).steps[step].state == state:
                return view.run_id
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("wrong.py:wrong_type", r"wrong\.py:14: .*shout"),
        ("wrong.py:unknown_input", r"wrong\.py:18: .*txet"),
        ("wrong.py:missing_input", r"wrong\.py:22: .*text"),
        ("wrong.py:right", r"wrong\.py:\d+: .*inputs\.text: missing, expected str: add -p text="),
        ("wrong.py", "contains 4 pipelines: choose one"),
        ("flows.py:nothing", "no pipeline 'nothing'"),
    ],
)
def test_compile_errors_show_file_and_line(workspace: Workspace, source: str, message: str) -> None:
    done = workspace.call("run", source, code=2)
    assert re.search(message, done.stderr), done.stderr
    assert done.stdout == ""


def test_a_missing_file_starts_nothing(workspace: Workspace) -> None:
    done = workspace.call("run", "flow.py", code=2)
    assert "did you mean 'flows.py'" in done.stderr and not workspace.home.exists()
    assert "no state folder" in workspace.call("runs", "list", code=3).stderr


def test_an_unusable_state_folder_is_reported(workspace: Workspace) -> None:
    workspace.home.write_text("a file")
    assert "state folder" in workspace.call("run", "flows.py:hello", code=3).stderr
    workspace.home.unlink()


# -------------------------------------------------------------------------------------------------------- one run


def test_json_output_is_one_object(up: Workspace) -> None:
    done = up.call("run", "flows.py:hello", "--json", "--label", "team=a", "--name", "first")
    run = json.loads(done.stdout)
    assert set(run) == {"run_id", "state", "outputs", "error", "models", "steps"}
    assert (run["state"], run["outputs"], run["error"]) == ("succeeded", {"result": 6}, None)
    assert list(run["steps"]) == ["numbers", "total"]
    step = run["steps"]["numbers"]
    assert set(step) == {"state", "attempts", "started_at", "finished_at", "metrics"}
    assert (step["state"], step["attempts"], step["metrics"]) == ("succeeded", 1, {"count": 4})
    assert step["started_at"] <= step["finished_at"]
    assert up.json("runs", "show", run["run_id"])["labels"] == {"team": "a", "name": "first"}


def test_a_failed_step_shows_the_traceback_and_skip_reasons(up: Workspace) -> None:
    done = up.call("run", "flows.py:failing", code=1)
    text = done.stdout
    assert "step broken failed: ValueError: cannot use [2] values" in text
    assert f'File "{up.folder}/flows.py", line' in text and "in helper" in text
    assert "penstock/" not in text.partition("step broken failed")[2].partition("step dies")[0]
    assert re.search(r"step dies failed after 2 attempts: .*code 3", text)
    assert re.search(r"total-2 skipped: step '(broken|dies)' failed", text)
    assert re.search(r"total +succeeded", text), "the independent branch ends"
    assert "retrying   attempt 1" in text


def test_json_of_a_failed_run_and_its_error_output(up: Workspace) -> None:
    done = up.call("run", "flows.py:failing", "--json", code=1)
    run = json.loads(done.stdout)
    assert run["state"] == "failed" and re.search("step '(broken|dies)' failed", run["error"])
    assert run["steps"]["total-2"]["state"] == "skipped" and run["steps"]["dies"]["attempts"] == 2
    assert "ValueError: cannot use [2] values" in done.stderr


def test_quiet_prints_only_failures(up: Workspace) -> None:
    done = up.call("run", "flows.py:hello", "--quiet")
    assert (done.stdout, done.stderr) == ("", "")
    done = up.call("run", "flows.py:failing", "--quiet", code=1)
    assert done.stdout == "" and "step broken failed" in done.stderr


def test_logs_are_printed_with_the_logs_option(up: Workspace) -> None:
    assert "numbers  | making numbers" in up.call("run", "flows.py:hello", "--logs").stdout
    assert "making numbers" not in up.call("run", "flows.py:hello").stdout


def test_module_output_does_not_mix_with_json(up: Workspace) -> None:
    (up.folder / "noisy.py").write_text("import os\nprint('loud')\nos.write(1, b'louder')\n" + FLOWS)
    done = up.call("run", "noisy.py:hello", "--json")
    assert json.loads(done.stdout)["state"] == "succeeded"
    assert "loud" in done.stderr and "louder" in done.stderr


def test_json_reports_why_no_run_was_created(up: Workspace) -> None:
    done = up.call("run", "wrong.py:wrong_type", "--json", code=2)
    printed = json.loads(done.stdout)
    assert printed["run_id"] is None and "wrong.py:14" in printed["error"] and "wrong.py:14" in done.stderr


def test_files_as_inputs_and_outputs(up: Workspace) -> None:
    run = up.json("run", "flows.py:files", "-p", "source=rows.csv")
    report = run["outputs"]["report"]
    assert Path(report["path"]).read_text() == "report of rows.csv"
    run_id = run["run_id"]
    assert up.call("artifacts", "get", run_id, "-o", "report").stdout.strip() == "report.txt"
    assert (up.folder / "report.txt").read_text() == "report of rows.csv"
    got = up.json("artifacts", "get", run_id, "--step", "read", "-o", "rows", "--to", "rows.json")
    assert json.loads(Path(got["path"]).read_text()) == ["a,b", "1,2"]
    assert "it has: report, text" in up.call("artifacts", "get", run_id, "-o", "nothing", code=2).stderr
    client = Client(home=up.home)
    assert client.artifacts.load(run_id, output="text") == "a,b\n1,2\n" * 20_000
    assert client.artifacts.load(run_id, "read", "file").read_text() == "report of rows.csv"


def test_timeout_cancels_the_run(up: Workspace) -> None:
    began = time.monotonic()
    done = up.call("run", "flows.py:slow", "--timeout", "1s", code=1)
    assert time.monotonic() - began < 10
    assert "cancelling (--timeout of 1 s has passed)" in done.stdout and "slow v1 cancelled" in done.stdout


def test_ctrl_c_cancels_and_waits_for_the_end(up: Workspace) -> None:
    process = up.start("run", "flows.py:slow")
    client = Client(home=up.home)
    run_id = await_state(client, "wait", "running", "slow")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "cancelling (Ctrl-C); press Ctrl-C again to leave" in out and "cancelled by" in out and ": Ctrl-C" in out
    assert client.runs.get(run_id).state == "cancelled"


def test_a_second_ctrl_c_exits_at_once(up: Workspace) -> None:
    process = up.start("run", "flows.py:short")
    client = Client(home=up.home)
    run_id = await_state(client, "pause", "running", "short")
    address = platform.find(up.home)
    assert address is not None and address.pid is not None
    os.kill(address.pid, signal.SIGSTOP)
    try:
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=15)
    finally:
        os.kill(address.pid, signal.SIGCONT)
    assert process.returncode == 130
    assert f"left run {run_id}: the run continues" in error and f"penstock runs show {run_id}" in error
    assert client.runs.wait(run_id, timeout=20).finished


# ---------------------------------------------------------------------------------------------------- looking at it


@pytest.fixture(scope="module")
def finished(up: Workspace) -> dict[str, Any]:
    return up.json("run", "flows.py:hello", "-p", "n=3")


def test_runs_are_listed(up: Workspace, finished: dict[str, Any]) -> None:
    newest = up.json("runs", "list", "--pipeline", "hello", "--state", "succeeded", "-n", "2")
    assert newest[0]["run_id"] == finished["run_id"] and all(run["pipeline"] == "hello" for run in newest)
    text = up.call("runs", "list").stdout.splitlines()
    assert text[0].split()[:3] == ["RUN", "PIPELINE", "STATE"]
    assert any(line.startswith(finished["run_id"]) and "succeeded" in line for line in text)
    assert "expected one of queued" in up.call("runs", "list", "--state", "odd", code=2).stderr


def test_a_run_is_shown(up: Workspace, finished: dict[str, Any]) -> None:
    run_id = finished["run_id"]
    text = up.call("runs", "show", run_id[:20]).stdout
    assert run_id in text and "inputs  n=3" in text and "  result  3" in text and "█" in text and "░" in text
    whole = up.json("runs", "show", run_id)
    assert whole["steps"]["total"]["depends_on"] == ["numbers"]
    assert whole["steps"]["numbers"]["outputs"] == {"result": [0, 1, 2]}
    assert "penstock runs list" in up.call("runs", "show", "k" + "0" * 25, code=2).stderr


def test_logs_are_shown(up: Workspace, finished: dict[str, Any]) -> None:
    lines = up.call("runs", "logs", finished["run_id"]).stdout.splitlines()
    assert [line[14:] for line in lines] == ["numbers | making numbers"]
    assert up.call("runs", "logs", finished["run_id"], "--step", "total").stdout == ""
    assert "numbers | count = 3" in up.call("runs", "logs", finished["run_id"], "--metrics").stdout
    entries = [json.loads(line) for line in up.call("runs", "logs", finished["run_id"], "--json").stdout.splitlines()]
    assert "making numbers" in {entry["text"].strip() for entry in entries}
    assert "it has: numbers, total" in up.call("runs", "logs", finished["run_id"], "--step", "x", code=2).stderr


def test_a_closed_output_pipe_is_not_an_error(up: Workspace, finished: dict[str, Any]) -> None:
    process = up.start("runs", "list")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == "", "no traceback, no complaint"
    process.stderr.close()
    assert process.wait(20) in (0, 141)


def test_a_run_is_cancelled_by_command(up: Workspace) -> None:
    process = up.start("run", "flows.py:slow", "--json")
    run_id = await_state(Client(home=up.home), "wait", "running", "slow")
    assert up.call("runs", "cancel", run_id, "--reason", "enough").stdout == f"run {run_id} cancelled\n"
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 1 and "enough" in json.loads(out)["error"]
    again = up.call("runs", "cancel", run_id)
    assert "had already finished" in again.stderr


def test_versions_are_listed(up: Workspace, finished: dict[str, Any]) -> None:
    versions = up.json("versions", "list", "hello")
    assert versions[0]["pipeline"] == "hello" and versions[0]["steps"] == 2
    assert "hello" in up.call("versions", "list").stdout


def test_deployments_are_created_and_deleted(up: Workspace, finished: dict[str, Any]) -> None:
    published = up.json("register", "flows.py:hello")
    assert (published["pipeline"], published["created"], published["published"]) == ("hello", False, True)
    assert "(latest)" in up.call("versions", "list", "hello").stdout
    put = ["deployments", "create", "nightly", "--pipeline", "hello", "--cron", "0 3 * * *", "--tz", "Europe/Paris"]
    definition = up.json(*put, "-p", "n=2")["definition"]
    [trigger] = definition["triggers"]
    assert (trigger["cron"], trigger["tz"]) == ("0 3 * * *", "Europe/Paris")
    assert (definition["inputs"], definition["version"]) == ({"n": 2}, None)
    assert [found["name"] for found in up.json("deployments", "list")] == ["nightly"]
    assert "Europe/Paris" in up.call("deployments", "list").stdout
    bad = up.call("deployments", "create", "odd", "--pipeline", "hello", "--cron", "every day", code=2)
    assert "cron" in bad.stderr
    assert up.call("deployments", "delete", "nightly").stdout == "deployment nightly deleted\n"
    assert up.json("deployments", "list") == []


def test_doctor_finds_the_platform(up: Workspace) -> None:
    report = up.json("doctor")
    assert report["ok"] and {check["check"] for check in report["checks"]} >= {"python", "nats-server", "disk", "clock"}
    check = next(check for check in report["checks"] if check["check"] == "platform")
    assert check["state"] == "ok" and "running at http://127.0.0.1:" in check["found"]
    schedulers = next(check for check in report["checks"] if check["check"] == "schedulers")
    assert schedulers["state"] == "ok"
    assert schedulers["found"].startswith("1 running; ") and schedulers["found"].endswith(f" has {ids.SHARDS}")
    executors = next(check for check in report["checks"] if check["check"] == "executors")
    assert executors["state"] == "ok" and "(pool *)" in executors["found"] and "GiB" in executors["found"]


def test_doctor_reports_failing_checks(workspace: Workspace) -> None:
    workspace.home.write_text("a file")
    done = workspace.call("doctor", code=3)
    assert "✘ fail  state folder" in done.stdout and "→ " in done.stdout
    workspace.home.unlink()


# ------------------------------------------------------------------------------------------------- registered pipelines


def test_a_registered_pipeline_runs_by_its_name(up: Workspace, tmp_path: Path) -> None:
    named = tmp_path / "named.py"
    named.write_text((up.folder / "flows.py").read_text().replace("def hello(", "def named("))
    up.call("run", f"{named}:named", "-q")
    assert "no published version" in up.call("run", "named", code=2).stderr
    assert up.json("run", "named@1", "-p", "n=3")["outputs"] == {"result": 3}
    up.call("register", f"{named}:named")
    named.unlink()
    assert up.json("run", "named")["outputs"] == {"result": 6}
    accepted = up.json("run", "named", "-p", "n=5", "--detach", "--label", "team=a")
    assert set(accepted) == {"run_id", "pipeline", "version", "state"} and accepted["pipeline"] == "named"
    assert Client(home=up.home).runs.wait(accepted["run_id"], timeout=60).outputs["result"] == {"value": 10}
    assert "did you mean 'named'" in up.call("run", "namde", code=2).stderr
    assert "has no version 9" in up.call("run", "named@9", code=2).stderr
    assert "expected NAME@VERSION" in up.call("run", "named@latest", code=2).stderr
    assert "inputs.n" in up.call("run", "named", "-p", "n=many", code=2).stderr


def test_earlier_runs_are_last_and_a_number(up: Workspace) -> None:
    ids = [up.json("run", "flows.py:hello", "-p", f"n={n}")["run_id"] for n in (1, 2)]
    assert [up.json("runs", "show", name)["run_id"] for name in ("last~1", "last", "last~0")] == [*ids, ids[1]]
    assert re.search(r"last~9999: you have \d+ runs only", up.call("runs", "show", "last~9999", code=2).stderr)


def test_logs_begin_with_the_last_lines(up: Workspace) -> None:
    run_id = up.json("run", "flows.py:slow", "--detach")["run_id"]
    client = Client(home=up.home)
    deadline = time.monotonic() + 60
    while sum(1 for _ in client.runs.logs(run_id, follow=False)) < 6:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process = up.start("runs", "logs", run_id, "--step", "wait", "--tail", "2")
    assert process.stdout is not None
    followed = [int(process.stdout.readline().split()[-1]) for _ in range(12)]
    assert followed == list(range(followed[0], followed[0] + 12)) and followed[0] >= 2, "no line is missing or twice"
    up.call("runs", "cancel", run_id)
    process.communicate(timeout=60)
    lines = up.call("runs", "logs", run_id).stdout.splitlines()
    assert up.call("runs", "logs", run_id, "--tail", "3").stdout.splitlines() == lines[-3:]
    assert up.call("runs", "logs", run_id, "--tail", "0", "--no-follow").stdout == ""


def test_a_deployment_runs_now(up: Workspace) -> None:
    up.call("register", "flows.py:hello")
    up.call("deployments", "create", "nightly", "--pipeline", "hello", "--cron", "0 3 * * *", "-p", "n=3")
    up.call("deployments", "pause", "nightly")
    first = up.json("deployments", "run", "nightly")
    assert (first["state"], first["outputs"]) == ("succeeded", {"result": 3})
    second = up.json("deployments", "run", "nightly", "-p", "n=5", "--label", "why=test", "--detach")
    assert Client(home=up.home).runs.wait(second["run_id"], timeout=60).outputs["result"] == {"value": 10}
    listed = up.json("runs", "list", "--deployment", "nightly", "--trigger", "manual")
    assert [run["run_id"] for run in listed] == [second["run_id"], first["run_id"]]
    assert listed[0]["labels"] == {"why": "test"}
    client = Client(home=up.home)
    again = [client.deployments.run("nightly", idempotency_key="once").run_id for _ in range(2)]
    assert again[0] == again[1]
    assert "there is no deployment 'daily'" in up.call("deployments", "run", "daily", code=2).stderr
    assert "inputs.n" in up.call("deployments", "run", "nightly", "-p", "n=many", code=2).stderr
    up.call("deployments", "delete", "nightly")


# ------------------------------------------------------------------------------------------------------ the platform


def test_a_second_platform_on_one_state_folder_is_rejected(up: Workspace) -> None:
    address = platform.find(up.home)
    assert address is not None
    done = up.call("up", code=3)
    assert f"process {address.pid}, {address.url}" in done.stderr and "PENSTOCK_HOME" in done.stderr


def test_a_command_waits_for_a_stopping_platform(workspace: Workspace) -> None:
    workspace.call("run", "flows.py:hello", "--quiet")
    process = workspace.start("up", "--json")
    assert process.stdout is not None and process.stderr is not None
    first = "".join(iter(process.stdout.readline, "}\n"))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, ""), f"{first}{err}"
    assert '"url"' in first


def test_up_does_not_replace_an_embedded_platform_in_use(workspace: Workspace) -> None:
    process = workspace.start("run", "flows.py:short", "--quiet")
    deadline = time.monotonic() + 20
    while platform.find(workspace.home) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert "a command uses the embedded platform" in workspace.call("up", code=3).stderr
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err


def test_a_port_in_use_is_reported(workspace: Workspace, up: Workspace) -> None:
    address = platform.find(up.home)
    assert address is not None
    done = workspace.call("up", "--port", address.url.rpartition(":")[2], code=2)
    assert "is in use" in done.stderr


def test_a_platform_can_be_used_from_another_folder_by_address(up: Workspace, workspace: Workspace) -> None:
    address = platform.find(up.home)
    assert address is not None
    named = {**workspace.environment(), "PENSTOCK_URL": address.url, "PENSTOCK_TOKEN": address.token}
    command = [PENSTOCK, "run", "flows.py:hello", "--json"]
    done = subprocess.run(
        command, cwd=workspace.folder, env=named, capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(done.stdout)["state"] == "succeeded" and not workspace.home.exists()
    wrong = subprocess.run(
        command, cwd=workspace.folder, env={**named, "PENSTOCK_TOKEN": "x"}, capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 3 and "token" in wrong.stderr


def test_runs_from_python(up: Workspace) -> None:
    client = Client(home=up.home)
    version = client.pipelines.register(f"{up.folder}/flows.py:hello")
    key = "the same"
    first = client.run(version, {"n": 10}, idempotency_key=key)
    again = client.run(version, {"n": 10}, idempotency_key=key)
    assert first.run_id == again.run_id and first.created and not again.created
    run = client.runs.wait(first.run_id, timeout=30, check=True)
    assert client.artifacts.load(run.run_id) == 45 and run.steps["numbers"].metrics == {"count": 10}
    kinds = [event.kind for event in client.runs.events(run.run_id)]
    assert kinds[0] == "run.requested" and kinds[-1] == "run.finished"
    assert [line.text.strip() for line in client.runs.logs(run.run_id) if line.text] == ["making numbers"]
    with pytest.raises(NotFoundError):
        client.runs.get("k" + "0" * 25)


# ---------------------------------------------------------------------------------------------------------- terminal


def test_a_terminal_shows_live_progress_and_then_the_summary(up: Workspace) -> None:
    import pty
    import struct
    import termios

    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    environment = {name: value for name, value in up.environment().items() if name not in ("COLUMNS", "NO_COLOR")}
    process = subprocess.Popen(
        [PENSTOCK, "run", "flows.py:short"],
        cwd=up.folder,
        env={**environment, "TERM": "xterm-256color"},
        stdin=side,
        stdout=side,
        stderr=side,
    )
    os.close(side)
    screen = bytearray()

    def read() -> None:
        while True:
            try:
                data = os.read(main, 65536)
            except OSError:
                return
            screen.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    assert process.wait(30) == 0
    reader.join(5)
    os.close(main)
    text = screen.decode()
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    assert "\x1b[1A" in text, "lines are redrawn"
    assert "1/2 finished, 1 running   Ctrl-C cancels" in plain and re.search(r"[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏] pause", plain)
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h"), "the cursor is shown again"
    assert re.search(r"short v\d+ succeeded in", plain) and "next steps: penstock runs show" in plain
