"""Archives and garbage collection on an S3 server, and in a folder outside the state folder."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest

from penstock import Client
from penstock_testkit.servers.cluster import Cluster
from penstock_testkit.servers.s3 import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server

PIPELINE = """
from pathlib import Path

from penstock import pipeline, step

@step
def make(seed: int) -> Path:
    print("making", seed)
    out = Path("out")
    out.mkdir()
    (out / "large").write_bytes(bytes([seed]) * 300_000)
    (out / "small").write_text(str(seed))
    return out

@step
def size(parts: Path) -> int:
    return sum(path.stat().st_size for path in parts.iterdir())

@pipeline
def stored(seed: int = 1):
    return size(make(seed))
"""


def archived_and_collected(cluster: Cluster) -> None:
    client = Client(url=cluster.url, token=cluster.token)
    client.pipelines.register(f"{cluster.source('stored.py', PIPELINE)}:stored")
    client.retention.archive_after(None)
    kept, gone = (client.run("stored", {"seed": seed}, wait=True) for seed in (1, 2))
    for run in (kept, gone):
        assert run.succeeded, run.error
        assert client.runs.archive(run.run_id).archived_count == 1
    cluster.kill("gateway")
    cluster.restart("gateway")
    cluster.wait_ready("gateway")
    assert client.artifacts.load(kept.run_id) == 300_001
    assert [line.text for line in client.runs.logs(kept.run_id, follow=False)] == ["making 1\n"]
    resumed = client.runs.wait(client.runs.resume(kept.run_id, from_step="size").run_id, timeout=60)
    assert resumed.outputs == kept.outputs

    client.runs.delete(gone.run_id)
    sha256 = gone.steps["make"].outputs["result"]["artifact"]["sha256"]
    assert client.transport.json("GET", f"/v1/runs/{kept.run_id}")["state"] == "succeeded"
    deadline = time.monotonic() + 90
    swept = 0
    while swept < 5 and time.monotonic() < deadline:
        swept += client.retention.collect_garbage().removed["objects"]
        time.sleep(0.5)
    # Manifest, file and pack of the folder; archive and output of the run.
    assert swept == 5
    to = cluster.home.parent / "kept"
    assert (client.artifacts.download(kept.run_id, step="make", to=to) / "large").stat().st_size == 300_000
    # Swept objects can be stored again.
    again = client.run("stored", {"seed": 2}, wait=True)
    assert again.steps["make"].outputs["result"]["artifact"]["sha256"] == sha256
    assert client.artifacts.load(again.run_id) == 300_001
    client.transport.download(f"/v1/artifacts/{sha256}", io.BytesIO())


@pytest.mark.timeout(300)
def test_a_store_on_s3(s3_server: S3Server, tmp_path: Path) -> None:
    env = {
        "PENSTOCK_ARTIFACTS_URL": f"s3://{BUCKET}/retention",
        "PENSTOCK_S3_ENDPOINT": s3_server.endpoint,
        "PENSTOCK_S3_ACCESS_KEY": ACCESS_KEY,
        "PENSTOCK_S3_SECRET_KEY": SECRET_KEY,
        "PENSTOCK_GRANT_SECONDS": "4",
        "PENSTOCK_GC_GRACE": "1",
        "PENSTOCK_JANITOR_INTERVAL": "0",
    }
    with Cluster(tmp_path / "cluster", env=env) as cluster:
        archived_and_collected(cluster)


@pytest.mark.timeout(300)
def test_a_store_in_another_folder(tmp_path: Path) -> None:
    """Steps write directly to the store."""
    store = tmp_path / "elsewhere"
    env = {
        "PENSTOCK_ARTIFACTS_URL": f"folder:{store}",
        "PENSTOCK_GC_GRACE": "1",
        "PENSTOCK_JANITOR_INTERVAL": "0",
    }
    with Cluster(tmp_path / "cluster", env=env) as cluster:
        archived_and_collected(cluster)
        assert not [path for path in (cluster.home / "artifacts").rglob("*") if path.is_file()]
        assert [path for path in (store / "sha256").rglob("*") if path.is_file()]
