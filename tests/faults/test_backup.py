"""The drill: a backup under load, the platform is killed and wiped, and everything of before the backup is restored."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from penstock import Client
from penstock_testkit.servers.cluster import Cluster
from penstock_testkit.servers.s3 import S3Server

from .test_damaged_log import RUNS, answer, prepare, verified
from .test_standalone_faults import standalone


def penstock(home: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("penstock")), *arguments]
    environment = {**os.environ, "PENSTOCK_HOME": str(home), **settings}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_backup_under_load_kill_wipe_restore(tmp_path: Path) -> None:
    home, folder = tmp_path / "home", tmp_path / "backup"
    stop = threading.Event()
    accepted: list[str] = []
    with standalone(home) as child:
        expected = prepare(home)

        def load() -> None:
            mine = Client(home=home)
            while not stop.is_set():
                accepted.append(mine.run("chain", {"x": 100 + len(accepted)}).run_id)
                time.sleep(0.02)

        loader = threading.Thread(target=load)
        loader.start()
        while len(accepted) < 5:
            time.sleep(0.02)
        before = list(accepted)
        done = penstock(home, "admin", "backup", str(folder))
        stop.set()
        loader.join()
        child.kill()
    assert done.returncode == 0, done.stderr
    assert "saved to" in done.stdout
    shutil.rmtree(home)
    done = penstock(home, "admin", "restore", str(folder))
    assert done.returncode == 0, done.stderr
    with standalone(home):
        client = Client(home=home)
        for run_id in before:
            assert client.runs.wait(run_id, timeout=60).state == "succeeded"
        for run_id, state in expected.items():
            assert client.runs.get(run_id).state == state
            if state == "succeeded":
                assert client.artifacts.load(run_id) % 8 == 0
            else:
                answer(client, run_id, "second")
                assert client.runs.wait(run_id, timeout=60).state == "succeeded"
        assert {run.run_id for run in client.runs.list(limit=500)} >= {*before, *expected}
        assert client.runs.wait(client.run("chain", {"x": 1}).run_id, timeout=60).state == "succeeded"
        found = verified(client)
        assert (found["ok"], found["damages"]) == (True, [])
    done = penstock(home, "admin", "restore", str(folder))
    assert done.returncode != 0
    assert "not empty" in done.stderr
    assert "--force" in done.stderr


def test_backups_of_a_stopped_platform_are_incremental_and_verified(tmp_path: Path) -> None:
    home, folder = tmp_path / "home", tmp_path / "backup"
    with standalone(home):
        prepare(home)
    for _ in range(2):
        done = penstock(home, "admin", "backup", str(folder))
        assert done.returncode == 0, done.stderr
        time.sleep(1)  # folders are named by the second
    [streams] = folder.glob("streams-*")
    done = penstock(home, "admin", "restore", str(folder), "--force")
    assert done.returncode == 0, done.stderr
    with standalone(home):
        assert len(Client(home=home).runs.list(limit=100)) == RUNS + 1
        running = penstock(home, "admin", "restore", str(folder), "--force")
        assert running.returncode != 0
        assert "already runs" in running.stderr
    file = streams / "RUNS.snapshot"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    done = penstock(home, "admin", "restore", str(folder), "--force")
    assert done.returncode != 0
    assert "missing or damaged" in done.stderr


@pytest.mark.parametrize("content", ["nothing", "a file"])
def test_folders_without_a_backup_are_refused(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "backup"
    folder.mkdir()
    if content == "a file":
        (folder / "file").write_text("")
        done = penstock(tmp_path / "home", "admin", "backup", str(folder))
        assert "is not empty and has no backup" in done.stderr
    done = penstock(tmp_path / "home", "admin", "restore", str(folder))
    assert done.returncode != 0
    assert "has no complete backup" in done.stderr


LARGE = """
from penstock import pipeline, step

@step
def text(n: int) -> bytes:
    return bytes([n % 256]) * 300_000

@pipeline
def large(n: int) -> bytes:
    return text(n)
"""


def test_separate_services_with_artifacts_in_s3_move_to_other_servers(tmp_path: Path, s3_server: S3Server) -> None:
    def settings(prefix: str) -> dict[str, str]:
        options = s3_server.options()
        return {
            "PENSTOCK_ARTIFACTS_URL": f"s3://{options.bucket}/{prefix}",
            "PENSTOCK_S3_ENDPOINT": options.endpoint or "",
            "PENSTOCK_S3_ACCESS_KEY": options.access_key or "",
            "PENSTOCK_S3_SECRET_KEY": options.secret_key or "",
        }

    folder = tmp_path / "backup"
    with Cluster(tmp_path / "first", env=settings("first")) as cluster:
        cluster.source("large.py", LARGE)
        client = Client(url=cluster.url, token=cluster.token)
        client.pipelines.register(f"{cluster.src / 'large.py'}:large")
        runs = [client.run("large", {"n": n}).run_id for n in range(3)]
        for run_id in runs:
            assert client.runs.wait(run_id, timeout=60).state == "succeeded"
        where = {"PENSTOCK_NATS_URL": cluster.nats.url, **settings("first")}
        done = penstock(tmp_path / "operator", "admin", "backup", str(folder), **where)
        assert done.returncode == 0, done.stderr
        assert "artifacts" in done.stdout
    other = Cluster(tmp_path / "second", env=settings("second"))
    other.nats.start()
    where = {"PENSTOCK_NATS_URL": other.nats.url, **settings("second")}
    done = penstock(tmp_path / "operator", "admin", "restore", str(folder), **where)
    other.nats.stop()
    assert done.returncode == 0, done.stderr
    with other:
        client = Client(url=other.url, token=other.token)
        assert {run.run_id for run in client.runs.list()} == {*runs}
        for n, run_id in enumerate(runs):
            assert client.artifacts.load(run_id) == bytes([n]) * 300_000
        again = client.run("large", {"n": 7})  # its code was restored, too
        assert client.runs.wait(again.run_id, timeout=60).state == "succeeded"
        found = verified(client)
        assert (found["ok"], found["damages"]) == (True, [])
