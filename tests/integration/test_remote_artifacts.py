"""Runs with artifacts in a real S3 service: the executor mirrors, the gateway redirects, both without credentials."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pandas as pd
import pytest

from penstock import Client
from penstock_testkit.servers.cluster import Cluster
from penstock_testkit.servers.s3 import S3Server

PIPELINE = """
import pandas as pd
from penstock import context, pipeline, step

@step
def table(rows: int) -> pd.DataFrame:
    context().log_artifact("note", "made here")
    return pd.DataFrame({"x": range(rows), "y": ["text"] * rows})

@step
def double(data: pd.DataFrame) -> pd.DataFrame:
    return data.assign(x=data["x"] * 2)

@pipeline
def frames(rows: int = 20_000) -> pd.DataFrame:
    return double(table(rows))
"""


MODELS = """
from pathlib import Path
from penstock import context, pipeline, step

@step
def train() -> int:
    folder = Path("model")
    folder.mkdir()
    (folder / "large").write_bytes(bytes(200_000))
    (folder / "small").write_text("small")
    context().register_model("weights", folder, alias="champion")
    context().register_model("plain", {"depth": 3})
    return 1

@pipeline
def training():
    return train()
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Iterator[Cluster]:
    options = s3_server.options()
    assert options.access_key and options.secret_key and options.endpoint
    env = {
        "PENSTOCK_ARTIFACTS_URL": f"s3://{options.bucket}/remote",
        "PENSTOCK_S3_ENDPOINT": options.endpoint,
        "PENSTOCK_S3_REGION": options.region or "us-east-1",
        "PENSTOCK_S3_ACCESS_KEY": options.access_key,
        "PENSTOCK_S3_SECRET_KEY": options.secret_key,
    }
    with Cluster(tmp_path_factory.mktemp("cluster"), env=env) as running:
        running.source("remote_frames.py", PIPELINE)
        yield running


def test_frames_travel_through_s3(cluster: Cluster, s3_server: S3Server) -> None:
    client = Client(url=cluster.url, token=cluster.token)
    version = client.pipelines.register(f"{cluster.src / 'remote_frames.py'}:frames")
    run = client.runs.wait(client.run("frames", version=version.version).run_id, timeout=120, check=True)
    # Everything that a reader needs is in the remote store.
    shutil.rmtree(cluster.home / "artifacts")
    expected = pd.DataFrame({"x": range(0, 40_000, 2), "y": ["text"] * 20_000})
    pd.testing.assert_frame_equal(client.artifacts.load(run.run_id), expected)
    bucket = s3_server.options().bucket
    listed = s3_server.client().list_objects_v2(Bucket=bucket, Prefix="remote/")
    assert listed["KeyCount"] >= 3  # the source bundle and two frames


def test_a_registered_model_is_in_the_bucket_with_all_its_files(cluster: Cluster) -> None:
    client = Client(url=cluster.url, token=cluster.token)
    cluster.source("remote_models.py", MODELS)
    version = client.pipelines.register(f"{cluster.src / 'remote_models.py'}:training")
    client.run(version, wait=True)
    shutil.rmtree(cluster.home / "artifacts")
    folder = client.models.get("weights@champion").load()
    assert (folder / "large").stat().st_size == 200_000
    assert client.models.get("plain").load() == {"depth": 3}


def test_an_executor_without_the_inputs_fetches_them(cluster: Cluster) -> None:
    client = Client(url=cluster.url, token=cluster.token)
    run_id = client.run("frames", {"rows": 30_000}).run_id
    cluster.kill("executor")
    shutil.rmtree(cluster.home / "artifacts", ignore_errors=True)
    shutil.rmtree(cluster.home / "sources", ignore_errors=True)
    cluster.restart("executor")
    assert client.runs.wait(run_id, timeout=120, check=True).state == "succeeded"
    assert len(client.artifacts.load(run_id)) == 30_000


def test_an_unavailable_store_delays_a_run(cluster: Cluster, s3_server: S3Server) -> None:
    client = Client(url=cluster.url, token=cluster.token)
    s3_server.stop()
    run_id = client.run("frames", {"rows": 10_001}).run_id
    try:
        with pytest.raises(Exception, match="still"):
            client.runs.wait(run_id, timeout=3)
    finally:
        s3_server.start()
    assert client.runs.wait(run_id, timeout=120, check=True).state == "succeeded"


def test_cached_results_are_reused_from_the_remote_store(cluster: Cluster) -> None:
    client = Client(url=cluster.url, token=cluster.token)
    cluster.source("remote_kept.py", PIPELINE.replace("@step", "@step(cache=True)"))
    version = client.pipelines.register(f"{cluster.src / 'remote_kept.py'}:frames")
    first = client.run(version, {"rows": 10_007}, wait=True)
    shutil.rmtree(cluster.home / "artifacts", ignore_errors=True)
    second = client.run(version, {"rows": 10_007}, wait=True)
    assert [step.state for step in second.steps.values()] == ["cached", "cached"]
    assert second.steps["double"].outputs == first.steps["double"].outputs
    assert len(client.artifacts.load(second.run_id)) == 10_007


CHECKPOINTED = """
import pandas as pd
from penstock import context, pipeline, step

@step(retries=1)
def grow() -> int:
    table = context().restore(default=pd.DataFrame({"x": [1]}))
    if len(table) == 1:
        context().checkpoint(pd.DataFrame({"x": range(5000)}))
        raise ConnectionError("lost")
    return len(table)

@pipeline
def growing() -> int:
    return grow()
"""


def test_a_checkpoint_is_in_the_store_before_the_next_attempt(cluster: Cluster) -> None:
    client = Client(url=cluster.url, token=cluster.token)
    cluster.source("remote_growing.py", CHECKPOINTED)
    version = client.pipelines.register(f"{cluster.src / 'remote_growing.py'}:growing")
    run = client.runs.wait(client.run(version).run_id, timeout=120, check=True)
    assert client.artifacts.load(run.run_id) == 5000
    shutil.rmtree(cluster.home / "artifacts", ignore_errors=True)
    assert len(client.artifacts.load(run.run_id, "grow", "checkpoint")) == 5000
