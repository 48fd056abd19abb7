"""The disk of a NATS server of the operator's own is full: services say so, and go on once it has been restarted."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock import Client
from penstock_testkit.servers.cluster import Cluster
from penstock_testkit.servers.nats import NatsServer

from .test_backup import penstock

PIPELINE = """
import time

from penstock import pipeline, step

@step
def inc(x: int) -> int:
    time.sleep(0.3)
    return x + 1

@pipeline
def chain(start: int) -> int:
    value = start
    for _ in range(5):
        value = inc(value)
    return value
"""
SIZE = 24 * 1024 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, timeout=30)
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True, timeout=30)


def until(condition: Callable[[], bool], cluster: Cluster, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "\n".join(f"--- {name}\n{cluster.log(name, 900)}" for name in cluster.names)
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_full_disk_is_reported_and_runs_go_on_after_a_restart(tmp_path: Path, disk: Path) -> None:
    nats = NatsServer(tmp_path / "nats", store=disk / "store", max_file_store="10GB")
    with Cluster(tmp_path / "cluster", nats=nats) as cluster:
        cluster.source("full.py", PIPELINE)
        client = Client(url=cluster.url, token=cluster.token, patience=1)
        client.pipelines.register(f"{cluster.src / 'full.py'}:chain")
        accepted = [client.run("chain", {"start": start}).run_id for start in range(6)]
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * (SIZE // 2))

        def fill() -> None:
            """Use up what is left, also what the server frees."""
            with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
                while file.write(b"x" * 4096):
                    pass

        def blocked() -> bool:
            fill()
            try:
                accepted.append(client.run("chain", {"start": len(accepted)}).run_id)
            except Exception:
                return True
            return False

        until(blocked, cluster)
        until(lambda: any("stores nothing" in text for text in client.platform_info()["problems"]), cluster)
        assert not client.platform_info()["ready"]
        where = {"PENSTOCK_URL": cluster.url, "PENSTOCK_TOKEN": cluster.token}
        assert "stream RUNS stores nothing" in penstock(tmp_path / "operator", "doctor", **where).stdout
        assert any(client.runs.get(run_id).state == "running" for run_id in accepted)
        ballast.unlink()
        nats.stop()
        cluster.restart("nats")
        patient = Client(url=cluster.url, token=cluster.token)
        for start, run_id in enumerate(accepted):
            assert patient.runs.wait(run_id, timeout=120).state == "succeeded"
            assert patient.artifacts.load(run_id) == start + 5
        until(lambda: patient.platform_info()["ready"] and not patient.platform_info()["problems"], cluster)
