"""Artifacts of registered versions outlive the runs that made them: a real platform that deletes and collects."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from penstock import Client
from penstock.client import platform
from penstock.errors import NotFoundError
from penstock_testkit.environment import user_environment

PENSTOCK = str(Path(sys.executable).parent / "penstock")

FLOWS = """
from pathlib import Path

from penstock import context, pipeline, step


@step
def train(seed: int) -> bytes:
    folder = Path("model")
    folder.mkdir()
    (folder / "large").write_bytes(seed.to_bytes(1, "big") * 100_000)
    (folder / "small").write_text(str(seed))
    context().register_model("kept", folder)
    return seed.to_bytes(1, "big") * 1000


@pipeline
def training(seed: int):
    return train(seed)
"""


@pytest.mark.timeout(240)
def test_registered_versions_outlive_their_runs_and_unreferenced_artifacts_are_deleted(tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text(FLOWS)
    environment = user_environment()
    environment |= {"PENSTOCK_GC_GRACE": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    up = subprocess.Popen([PENSTOCK, "up"], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while platform.find(tmp_path / ".penstock") is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        client = Client(home=tmp_path / ".penstock")
        version = client.pipelines.register(tmp_path / "flows.py")
        first, *_ = [client.run(version, {"seed": seed}, wait=True) for seed in (1, 2, 3)]
        result = first.outputs["result"]["artifact"]["sha256"]
        client.models.promote("kept", 2, "champion")

        def collect(*command: str) -> str:
            done = subprocess.run(
                [PENSTOCK, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
            )
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        collect("retention", "set", "few", "--pipeline", "training", "--keep-last", "1")
        while client.transport.exists(f"/v1/artifacts/{result}"):
            collect("admin", "gc")
            assert time.monotonic() < deadline + 120, "what only a deleted run held stays"
            time.sleep(0.5)
        with pytest.raises(NotFoundError):
            client.runs.get(first.run_id)
        for seed in (1, 2, 3):
            folder = client.models.get(f"kept:{seed}").load()
            assert (folder / "small").read_text() == str(seed)
            assert (folder / "large").stat().st_size == 100_000
        # The run of the version with the alias is retained as well.
        assert client.runs.get(client.models.get("kept@champion").run_id).succeeded
    finally:
        up.terminate()
        up.wait(60)
