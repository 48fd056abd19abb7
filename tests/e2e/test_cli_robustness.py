"""Commands whose output is closed, that are interrupted, or that fail; and `runs show --follow`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pexpect
import pytest

from penstock import Client
from penstock.client import platform
from penstock_testkit.environment import user_environment

PENSTOCK = str(Path(sys.executable).parent / "penstock")

FLOWS = """
import time
from pathlib import Path
from penstock import context, pipeline, step

@step
def hello(n: int) -> int:
    print("\\n".join(f"line {i}" for i in range(2000)))
    return n

@pipeline
def greeting(n: int = 1):
    return hello(n)

@step
def long(folder: str) -> int:
    context().progress(17, 30, "files")
    while not (Path(folder) / "go").exists():
        time.sleep(0.02)
    return 1

@pipeline
def waiting(folder: str):
    return long(folder)
"""


class Place:
    """A folder with a platform, and a finished run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {**user_environment(), "COLUMNS": "120", "TERM": "xterm"}
        (folder / "flows.py").write_text(FLOWS)
        self.up = subprocess.Popen(
            [PENSTOCK, "up", "--port", "0"],
            cwd=folder,
            env=self.env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 120
        while platform.find(folder / ".penstock") is None:
            assert time.monotonic() < deadline and self.up.poll() is None
            time.sleep(0.05)
        self.client = Client(home=folder / ".penstock")
        for name in ("greeting", "waiting"):
            self.client.pipelines.register(f"{folder / 'flows.py'}:{name}")
        self.run_id = self.client.run("greeting", wait=True).run_id

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PENSTOCK, *arguments],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    def start(self, *arguments: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [PENSTOCK, *arguments], cwd=self.folder, env=self.env, stdout=stdout, stderr=subprocess.PIPE, text=True
        )

    def waiting(self, name: str) -> tuple[str, Path]:
        """Start a run whose step runs until a file exists; returns it when the step runs, and the file."""
        folder = self.folder / name
        folder.mkdir()
        run = self.client.run("waiting", {"folder": str(folder)})
        while self.client.runs.get(run.run_id).steps["long"].state != "running":
            time.sleep(0.05)
        return run.run_id, folder / "go"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("robust"))
    yield made
    made.up.send_signal(signal.SIGINT)
    made.up.wait(60)


PRINTING = [
    "--help", "--version", "runs list", "runs list --json", "runs show last", "runs show last --json", "runs logs last",
    "runs explain last", "runs metrics last", "runs compare last last", "runs export last", "trace last",
    "versions list", "versions show greeting", "deployments list", "models list", "limits list",
    "retention list", "tokens list", "events list", "dead-letters list", "questions list", "doctor", "doctor --json",
    "backfills list", "run flows.py:greeting", "run flows.py:greeting --json", "runs list --no-such-option",
]  # fmt: skip


def test_no_command_fails_with_a_traceback_when_its_output_is_closed(place: Place) -> None:
    def call(line: str) -> tuple[str, int, str]:
        read, write = os.pipe()
        os.close(read)
        process = place.start(*line.split(), stdout=write)
        os.close(write)
        _, errors = process.communicate(timeout=90)
        return line, process.returncode, errors

    with ThreadPoolExecutor(3) as pool:
        for line, code, errors in pool.map(call, PRINTING):
            assert "Traceback" not in errors and "Exception ignored" not in errors, line
            assert "internal error" not in errors and "Broken pipe" not in errors, line
            assert code in (0, 1, 2, 141), (line, code, errors)


def test_head_gets_its_line_of_a_long_output(place: Place) -> None:
    script = f"{PENSTOCK} runs logs {place.run_id} | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=place.folder, env=place.env, capture_output=True, text=True, timeout=60, check=True
    )
    assert re.fullmatch(r".*line 0\n141\n", done.stdout), done
    assert done.stderr == ""


FAILING = [
    ("runs show no-such-run --json", 2),
    ("runs list --no-such-option --json", 2),
    ("runs cancel --json", 2),
    ("run flows.py:nothing --json", 2),
    ("run missing.py --json", 2),
    ("versions show nothing --json", 2),
    ("deployments show nothing --json", 2),
    ("models show nothing --json", 2),
    ("trace nothing --json", 2),
    ("artifacts get last -o nothing --json", 2),
]


def test_json_output_is_json_on_errors(place: Place) -> None:
    with ThreadPoolExecutor(3) as pool:
        found = pool.map(lambda case: (case, place.call(*case[0].split())), FAILING)
        for (line, code), done in found:
            assert done.returncode == code, (line, done)
            error = json.loads(done.stdout)["error"]
            assert isinstance(error, str) and error, (line, done)
            assert "Traceback" not in done.stderr and done.stderr.strip(), (line, done)


def test_an_unreachable_platform_is_exit_code_3_also_in_json(place: Place, unused_tcp_port: int) -> None:
    env = {**place.env, "PENSTOCK_URL": f"http://127.0.0.1:{unused_tcp_port}"}
    done = subprocess.run(
        [PENSTOCK, "runs", "list", "--json"],
        cwd=place.folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3
    assert "did not answer" in json.loads(done.stdout)["error"]


def test_ctrl_c_ends_long_commands_with_130_and_one_line(place: Place) -> None:
    run_id, go = place.waiting("interrupted")
    for line in (f"runs logs {run_id}", f"runs show {run_id} --follow", "events tail"):
        process = place.start(*line.split())
        # Interrupted when it follows: its first request has been answered.
        deadline = time.monotonic() + 60
        while not _is_connected(process.pid):
            assert time.monotonic() < deadline and process.poll() is None, line
            time.sleep(0.02)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 130, (line, errors)
        assert len(errors.splitlines()) == 1 and "Traceback" not in errors, (line, errors)
    assert place.client.runs.get(run_id).state == "running"
    go.touch()


def _is_connected(pid: int) -> bool:
    """Whether a process has a TCP connection."""
    try:
        links = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
        sockets = {link[8:-1] for link in links if link.startswith("socket:[")}
        rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    except OSError:
        return False
    return any(row[9] in sockets and row[3] == "01" for row in rows)


def test_show_follow_redraws_on_a_terminal_until_the_run_ends(place: Place) -> None:
    run_id, go = place.waiting("redrawn")
    command = pexpect.spawn(
        PENSTOCK,
        ["runs", "show", run_id, "--follow"],
        cwd=str(place.folder),
        env=place.env,
        encoding="utf-8",
        timeout=60,
        dimensions=(40, 120),
    )
    command.expect("17/30 files")
    command.expect("Ctrl-C leaves; the run continues")
    go.touch()
    command.expect("succeeded.{0,20} in ")
    command.expect(pexpect.EOF)
    command.close()
    assert command.exitstatus == 0


def test_ctrl_c_on_a_terminal_leaves_the_run(place: Place) -> None:
    run_id, go = place.waiting("left")
    command = pexpect.spawn(
        PENSTOCK, ["runs", "show", run_id, "-f"], cwd=str(place.folder), env=place.env, encoding="utf-8", timeout=60
    )
    command.expect("17/30")
    command.sendintr()
    command.expect(f"left run {run_id}: the run continues")
    command.expect(pexpect.EOF)
    command.close()
    assert command.exitstatus == 130
    assert place.client.runs.get(run_id).state == "running"
    go.touch()


def test_show_follow_prints_lines_elsewhere_and_json_at_the_end(place: Place) -> None:
    run_id, go = place.waiting("lines")
    plain, as_json = (
        place.start("runs", "show", run_id, "--follow"),
        place.start("runs", "show", run_id, "-f", "--json"),
    )
    assert plain.stdout is not None
    first = plain.stdout.readline()
    assert run_id in first
    go.touch()
    out, errors = plain.communicate(timeout=60)
    assert (plain.returncode, errors) == (0, "")
    assert "\x1b" not in first + out
    assert "long" in out and "succeeded in" in out
    shown, _ = as_json.communicate(timeout=60)
    assert json.loads(shown)["state"] == "succeeded"
    assert place.call("runs", "show", run_id, "long", "--follow").returncode == 2
