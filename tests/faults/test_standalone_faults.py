"""The standalone platform: killed in the middle of a run, started twice, without disk space or permissions."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock import Client
from penstock.client import platform
from penstock_testkit.servers.child import Child
from penstock_testkit.servers.processes import gone, processes_with

PIPELINE = """
import os, time
from pathlib import Path
from penstock import pipeline, step

@step
def slow(x: int, note: str) -> int:
    with open(note, "a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(0.25)
    return x + 1

@pipeline
def chain(note: str) -> int:
    value = 0
    for _ in range(8):
        value = slow(value, note)
    return value

@step
def forever(note: str) -> int:
    import subprocess
    child = subprocess.Popen(["sleep", "300"])
    Path(note).write_text(f"{os.getpid()} {child.pid}")
    time.sleep(300)
    return 1

@pipeline
def endless(note: str) -> int:
    return forever(note)
"""


@contextmanager
def standalone(
    home: Path, *arguments: str, env: dict[str, str] | None = None, descriptors: int | None = None
) -> Iterator[Child]:
    """A ready platform, stopped at the end; with so many file descriptors."""
    home.mkdir(parents=True, exist_ok=True)
    note = home / "platform.json"
    note.unlink(missing_ok=True)
    command = [sys.executable, "-m", "penstock_standalone", "--home", str(home), *arguments]
    if descriptors is not None:
        command = ["sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh", *command]
    settings = {"PENSTOCK_ACK_WAIT": "1.5", "PENSTOCK_GRACE": "1", "PENSTOCK_DRAIN": "0.5", **(env or {})}
    child = Child("platform", command, home.parent / "platform.log", home.parent, settings)
    try:
        child.wait_until(note.exists, 60)
        yield child
    finally:
        child.stop(timeout=20)


def failed_start(home: Path, *arguments: str) -> tuple[int, str]:
    """Return exit status and output of a platform that cannot start."""
    command = [sys.executable, "-m", "penstock_standalone", "--home", str(home), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    return done.returncode, done.stderr


def client_with(home: Path, pipeline: str) -> Client:
    """A client, with a pipeline registered. Modules of one name cannot be imported from two folders."""
    source = home.parent / "src" / f"faulty{zlib.crc32(str(home).encode())}.py"
    source.parent.mkdir(exist_ok=True)
    source.write_text(PIPELINE)
    found = Client(home=home)
    found.pipelines.register(f"{source}:{pipeline}")
    return found


@pytest.mark.parametrize("victim", ["platform", "nats"])
def test_a_run_continues_after_kill_9(tmp_path: Path, victim: str) -> None:
    home, note = tmp_path / "home", tmp_path / "note"
    with standalone(home) as child:
        client = client_with(home, "chain")
        run_id = client.run("chain", {"note": str(note)}).run_id
        while not note.exists() or len(note.read_text().splitlines()) < 3:
            time.sleep(0.02)
        if victim == "nats":
            os.kill(json.loads((home / "platform.json").read_text())["nats_pid"], signal.SIGKILL)
            assert Client(home=home).runs.wait(run_id, timeout=120).state == "succeeded"
        else:
            child.kill()
    if victim == "platform":
        assert not [pid for pid in processes_with(str(home)) if not gone(pid)], "something outlived the platform"
        with standalone(home):
            run = Client(home=home).runs.wait(run_id, timeout=120)
            assert (run.state, Client(home=home).artifacts.load(run_id)) == ("succeeded", 8)
            assert len(note.read_text().splitlines()) <= 8 + sum(s.attempts - 1 for s in run.steps.values()) + 1


def test_killing_the_platform_leaves_no_step_process(tmp_path: Path) -> None:
    home, note = tmp_path / "home", tmp_path / "note"
    with standalone(home) as child:
        client = client_with(home, "endless")
        run_id = client.run("endless", {"note": str(note)}).run_id
        while not note.exists() or not note.read_text():
            time.sleep(0.02)
        step, grandchild = map(int, note.read_text().split())
        child.kill()
        assert gone(step)
    with standalone(home):
        assert gone(grandchild), "a process that the user's step had started outlived the restart"
        client = Client(home=home)
        client.runs.cancel(run_id)
        assert client.runs.wait(run_id, timeout=90).state == "cancelled"


def test_a_stop_hands_running_attempts_back(tmp_path: Path) -> None:
    home, note = tmp_path / "home", tmp_path / "note"
    with standalone(home):
        client = client_with(home, "endless")
        run_id = client.run("endless", {"note": str(note)}).run_id
        while not note.exists() or not note.read_text():
            time.sleep(0.02)
        pids = list(map(int, note.read_text().split()))
    assert all(gone(pid) for pid in pids)
    assert not (home / "platform.json").exists()
    note.unlink()
    with standalone(home):
        while not note.exists() or not note.read_text():
            time.sleep(0.02)
        client = Client(home=home)
        assert client.runs.get(run_id).steps["forever"].attempts == 2
        client.runs.cancel(run_id)
        assert client.runs.wait(run_id, timeout=90).state == "cancelled"


def test_a_second_platform_on_one_state_folder_is_rejected(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with standalone(home) as child:
        status, words = failed_start(home)
        assert status == 3
        assert "a platform already runs on" in words
        assert str(child.pid) in words
        assert "PENSTOCK_HOME" in words
        assert Client(home=home).runs.list() == []


def test_a_second_platform_is_rejected_although_every_lock_file_was_deleted(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with standalone(home):
        for path in (*home.glob("*.lock"), home / "platform.json"):
            path.unlink(missing_ok=True)
        status, words = failed_start(home)
        assert (status, "a platform already runs on" in words) == (3, True)
        deadline = time.monotonic() + 60
        while platform.find(home) is None:  # the platform writes its address again
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert Client(home=home).runs.list() == []


def test_a_platform_stops_when_its_state_folder_is_replaced(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with standalone(home) as first:
        home.rename(tmp_path / "away")
        assert first.process.wait(timeout=60) == 1
        assert "was deleted, moved or replaced" in first.tail()
        with standalone(home):
            assert Client(home=home).runs.list() == []


@pytest.mark.slow
def test_idle_connections_without_a_token_exhaust_nothing(tmp_path: Path) -> None:
    """Neither runs nor requests fail, although there are more connections than the platform has descriptors."""
    home = tmp_path / "home"
    with standalone(home, descriptors=200) as child:
        client = client_with(home, "chain")
        port = int(json.loads((home / "platform.json").read_text())["url"].rpartition(":")[2])
        idle: list[socket.socket] = []
        try:
            run = client.run("chain", {"note": str(tmp_path / "note")})
            while client.runs.get(run.run_id).state == "running" or len(idle) < 400:
                with contextlib.suppress(OSError):
                    idle.append(socket.create_connection(("127.0.0.1", port), timeout=5))
            assert client.runs.wait(run.run_id, timeout=60).state == "succeeded"
            again = client.run("chain", {"note": str(tmp_path / "note")})
            assert client.runs.wait(again.run_id, timeout=60).state == "succeeded"
        finally:
            for one in idle:
                one.close()
        assert child.process.poll() is None
        assert "Too many open files" not in child.tail(100_000)


def test_a_port_in_use_is_reported(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, words = failed_start(tmp_path / "home", "--port", str(port))
    assert status == 1
    assert str(port) in words
    assert "Traceback" not in words


def test_an_unwritable_state_folder_is_reported(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    status, words = failed_start(in_the_way / "home")
    assert status == 3
    assert "cannot be written" in words
    assert "PENSTOCK_HOME" in words


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of limited size. Skips if this machine does not allow mounting one."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Fill the disk of a folder."""
    ballast = folder / "ballast"
    free = shutil.disk_usage(folder).free
    # Unbuffered: what is left in a buffer would be written, and fail, when the file is closed.
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        written = 0
        while written < free + 4096:
            written += file.write(b"\0" * 65536)
    return ballast


def test_a_full_disk_is_reported_at_start(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 80) as disk:
        fill(disk)
        status, words = failed_start(disk / "home")
        assert status == 3
        assert "full" in words or "MiB left" in words
        assert "PENSTOCK_HOME" in words


def test_a_disk_that_fills_up_only_delays_the_run(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 200) as disk:
        home, note = disk / "home", tmp_path / "note"
        with standalone(home):
            client = client_with(home, "chain")
            run_id = client.run("chain", {"note": str(note)}).run_id
            while not note.exists() or len(note.read_text().splitlines()) < 2:
                time.sleep(0.02)
            ballast = fill(disk)
            time.sleep(2.0)
            ballast.unlink()
            run = Client(home=home).runs.wait(run_id, timeout=120)
            assert (run.state, Client(home=home).artifacts.load(run_id)) == ("succeeded", 8)
