"""A step saves checkpoints, and its executor or process is killed: the next attempt resumes from the last one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from penstock import Client
from penstock_core.facts import ArtifactCommitted
from penstock_testkit.servers.cluster import Cluster

PIPELINE = """
import os
import time
from pathlib import Path

from penstock import context, pipeline, step

@step(retries=3)
def train(note: str, epochs: int) -> list[int]:
    state = context().restore(default={"epoch": 0, "weights": b""})
    with open(note, "a") as file:
        file.write(f"{context().attempt} {os.getpid()} {state['epoch']} {len(state['weights'])}\\n")
    for epoch in range(state["epoch"], epochs):
        time.sleep(0.05)
        context().checkpoint({"epoch": epoch + 1, "weights": bytes(epoch + 1)})
    return [context().attempt, epochs]

@pipeline
def training(note: str, epochs: int = 100) -> list[int]:
    return train(note, epochs)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as running:
        running.source("checkpointed.py", PIPELINE)
        yield running


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("victim", ["executor", "process"])
def test_the_next_attempt_resumes_from_the_last_checkpoint(cluster: Cluster, victim: str) -> None:
    client = Client(url=cluster.url, token=cluster.token)
    version = client.pipelines.register(f"{cluster.src / 'checkpointed.py'}:training")
    note = cluster.home.parent / f"note-{victim}"
    run_id = client.run(version, {"note": str(note)}).run_id
    published = _wait_for_checkpoint(client, run_id)
    if victim == "executor":
        cluster.kill("executor")
        cluster.restart("executor")
    else:
        os.kill(int(note.read_text().split()[1]), signal.SIGKILL)
    run = client.runs.wait(run_id, timeout=120, check=True)
    attempts = [[int(word) for word in line.split()] for line in note.read_text().splitlines()]
    assert [attempt for attempt, *_ in attempts] == [1, 2]
    _, _, epoch, weights = attempts[1]
    assert published <= epoch < 100 and weights == epoch
    assert client.artifacts.load(run_id) == [2, 100]
    assert run.steps["train"].attempts == 2
    saved = run.steps["train"].checkpoint
    assert saved is not None and saved.attempt == 2
    assert client.artifacts.load(run_id, "train", "checkpoint")["epoch"] == 100
    # The log keeps the latest checkpoint of each attempt, regardless of their number.
    _, facts = cluster.history(run_id, "training", version.version)
    kept = [record.fact for record in facts if isinstance(record.fact, ArtifactCommitted)]
    assert [(fact.attempt, fact.name) for fact in kept] == [(1, "checkpoint"), (2, "checkpoint")]


def _wait_for_checkpoint(client: Client, run_id: str) -> int:
    """Return the epoch of a published checkpoint."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        saved = client.runs.get(run_id).steps["train"].checkpoint
        if saved is not None and saved.value["fields"]["epoch"]["value"] >= 3:
            return saved.value["fields"]["epoch"]["value"]
        time.sleep(0.05)
    raise AssertionError("no checkpoint was announced")
