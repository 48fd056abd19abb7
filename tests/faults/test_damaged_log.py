"""A damaged store of the broker: a flipped bit or a truncated block is never a silent loss."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nats
import pytest

from penstock import Client
from penstock_adapters.nats.buckets.integrity import IntegrityStore
from penstock_adapters.nats.bus import Bus
from penstock_testkit.servers.cluster import Cluster
from penstock_testkit.servers.nats import NatsServer

from .test_standalone_faults import standalone

SOURCE = """
from penstock import ask, context, pipeline, sleep, step

@step
def double(x: int) -> int:
    return 2 * x

@step
def talk() -> int:
    print("a line")
    context().log_metric("loss", 0.5)
    return 1

@pipeline
def talking() -> int:
    return talk()

@pipeline
def sleeping() -> int:
    return double(1).after(sleep("12s"))

@pipeline
def chain(x: int) -> int:
    return double(double(double(x)))

@pipeline
def gated(x: int) -> int:
    first = ask("Train?", name="first")
    value = double(x).after(first)
    second = ask("Publish?", name="second").after(value)
    return double(value).after(second)
"""
RUNS = 6


def wait_for(condition: Callable[[], Any], what: str, timeout: float = 90) -> Any:
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, f"timeout: {what}"
        time.sleep(0.1)
    return found


def prepare(home: Path) -> dict[str, str]:
    """Run pipelines; one run waits at its second question. Returns the expected states."""
    source = home.parent / f"damaged_{abs(hash(home))}.py"
    source.write_text(SOURCE)
    client = Client(home=home)
    client.pipelines.register(f"{source}:chain")
    client.pipelines.register(f"{source}:gated")
    runs = [client.run("chain", {"x": n}).run_id for n in range(RUNS)]
    gated = client.run("gated", {"x": 5}).run_id
    answer(client, gated, "first")
    for run_id in runs:
        assert client.runs.wait(run_id, timeout=60).state == "succeeded"
    wait_for(lambda: is_asked(client, gated, "second"), "the second question")
    assert len(client.runs.list(limit=100)) == RUNS + 1  # waits until the read model is current
    return dict.fromkeys(runs, "succeeded") | {gated: "running"}


def is_asked(client: Client, run_id: str, key: str) -> bool:
    return client.runs.get(run_id).steps[key].state == "suspended"


def answer(client: Client, run_id: str, key: str) -> None:
    wait_for(lambda: is_asked(client, run_id, key), f"question {key}")
    client.questions.answer(run_id, key, "yes")


def blocks(home: Path, stream: str = "RUNS") -> list[Path]:
    return sorted(home.glob(f"nats/jetstream/*/streams/{stream}/msgs/*.blk"))


def flip(file: Path, at: int, bit: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1 << bit
    file.write_bytes(data)


def cut(file: Path) -> None:
    """Truncate a file between two messages: the server counts the others as deleted, and reports no loss."""
    data = file.read_bytes()
    at = 0
    while at < len(data) // 2:
        at += int.from_bytes(data[at : at + 4], "little") & 0x7FFFFFFF
    os.truncate(file, at)


def integrity(client: Client) -> dict[str, Any]:
    return client.transport.json("GET", "/v1/admin/integrity")


def verified(client: Client) -> dict[str, Any]:
    """Verify all streams, and return what was found."""
    client.transport.json("POST", "/v1/admin/integrity/verify")

    def done() -> dict[str, Any] | None:
        found = integrity(client)
        return None if found["verifying"] or found["repairing"] else found

    return wait_for(done, "verification")


def check(home: Path, expected: dict[str, str]) -> list[dict[str, Any]]:
    """Everything that was acknowledged is there, and the unfinished run continues; returns the damages."""
    client = Client(home=home)
    found = verified(client)
    for run_id, state in expected.items():
        assert client.runs.get(run_id).state == state, (run_id, found)
    assert {run.run_id for run in client.runs.list(limit=100)} == set(expected)
    for run in client.runs.list("gated"):
        answer(client, run.run_id, "second")
        assert client.runs.wait(run.run_id, timeout=60).state == "succeeded"
        assert client.artifacts.load(run.run_id) == 20
    assert found["ok"], found
    return found["damages"]


@pytest.mark.parametrize("stop", ["terminated", "killed"])
@pytest.mark.parametrize("damage", ["bit", "truncated"])
def test_a_damaged_log_of_runs_is_repaired(tmp_path: Path, damage: str, stop: str) -> None:
    home = tmp_path / "home"
    with standalone(home) as child:
        expected = prepare(home)
        if stop == "killed":
            child.kill()
    [file] = blocks(home)
    if damage == "bit":
        flip(file, file.stat().st_size // 3, 3)
    else:
        os.truncate(file, file.stat().st_size // 3)
    with standalone(home):
        damages = check(home, expected)
        assert damages
        assert {one["stream"] for one in damages} == {"RUNS"}
        assert sum(one["restored"] for one in damages) > 0


def test_a_log_that_the_server_shortens_without_a_word_is_repaired_at_the_start(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with standalone(home):
        expected = prepare(home)
    [file] = blocks(home)
    cut(file)
    with standalone(home):
        client = Client(home=home)
        found = wait_for(
            lambda: (seen := integrity(client))["damages"] and not seen["repairing"] and seen, "repair", 15
        )
        assert found["ok"]
        for run_id, state in expected.items():
            assert client.runs.get(run_id).state == state


def test_a_lost_store_is_reported_and_its_rows_are_kept(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with standalone(home):
        expected = prepare(home)
    shutil.rmtree(home / "nats/jetstream")
    with standalone(home):
        client = Client(home=home)
        assert {run.run_id for run in client.runs.list(limit=100)} == set(expected)
        found = verified(client)
        assert not found["ok"]
        [damage] = found["damages"]
        assert (damage["stream"], damage["restored"]) == ("RUNS", 0)
        assert "version 1 of pipeline 'chain' is lost" in damage["description"]
        assert {run.run_id for run in client.runs.list(limit=100)} == set(expected)
        accepted = client.transport.json("POST", "/v1/admin/integrity/accept")
        assert accepted["ok"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as running:
        running.source("separate.py", SOURCE)
        yield running


@pytest.mark.parametrize("stop", ["killed", "stopped"])
def test_separate_services_continue_after_their_log_was_damaged(cluster: Cluster, stop: str) -> None:
    client = Client(url=cluster.url, token=cluster.token)
    for name in ("chain", "gated"):
        client.pipelines.register(f"{cluster.src / 'separate.py'}:{name}")
    runs = [client.run("chain", {"x": n}).run_id for n in range(RUNS)]
    gated = [client.run("gated", {"x": n}).run_id for n in range(3)]
    for run_id in gated[:2]:
        answer(client, run_id, "first")
    for run_id in runs:
        assert client.runs.wait(run_id, timeout=60).state == "succeeded"
    wait_for(lambda: all(is_asked(client, run_id, "second") for run_id in gated[:2]), "the second questions")
    wait_for(lambda: is_asked(client, gated[2], "first"), "the first question")
    seen = len(client.runs.list(limit=100))  # waits until the read model is current
    before = len(integrity(client)["damages"])
    assert isinstance(cluster.nats, NatsServer)
    cluster.nats.stop() if stop == "stopped" else cluster.nats.kill()
    files = cluster.nats.store.glob("jetstream/*/streams/RUNS/msgs/*.blk")
    file = max(files, key=lambda path: path.stat().st_size)
    os.truncate(file, file.stat().st_size * 2 // 3)
    cluster.restart("nats")
    found = wait_for(
        lambda: len((now := integrity(client))["damages"]) > before and now["ok"] and not now["repairing"] and now,
        "repair",
    )
    assert all(one["stream"] == "RUNS" for one in found["damages"])
    for run_id in runs:
        assert client.runs.get(run_id).state == "succeeded"
    assert len(client.runs.list(limit=100)) == seen
    answer(client, gated[2], "first")
    for n, run_id in enumerate(gated):
        answer(client, run_id, "second")
        assert client.runs.wait(run_id, timeout=60).state == "succeeded"
        assert client.artifacts.load(run_id) == 4 * n
    found = verified(client)
    assert found["ok"], found


def recorded(cluster: Cluster) -> set[str]:
    """The streams that had messages when their positions were recorded last."""

    async def read() -> set[str]:
        client = await nats.connect(cluster.nats.urls)
        try:
            record = await IntegrityStore(Bus(client)).read()
            return {name for name, position in record.positions.items() if position.messages}
        finally:
            await client.close()

    return asyncio.run(read())


def test_the_loss_of_the_newest_output_metrics_and_timers_is_noticed(cluster: Cluster) -> None:
    client = Client(url=cluster.url, token=cluster.token)
    for name in ("talking", "sleeping"):
        client.pipelines.register(f"{cluster.src / 'separate.py'}:{name}")
    for _ in range(3):
        client.run("talking", wait=True)
    runs = [client.run("sleeping").run_id for _ in range(3)]
    for run_id in runs:
        wait_for(lambda run_id=run_id: client.runs.get(run_id).steps["sleep"].state == "suspended", "the timer")
    known = len(integrity(client)["damages"])
    wait_for(lambda: {"LOGS", "METRICS", "TIMERS"} <= recorded(cluster), "the record of positions")
    assert isinstance(cluster.nats, NatsServer)
    cluster.nats.stop()
    for stream in ("LOGS", "METRICS", "TIMERS"):
        for file in cluster.nats.store.glob(f"jetstream/*/streams/{stream}/msgs/*.blk"):
            cut(file)
    cluster.restart("nats")

    def new() -> dict[str, bool]:
        found = integrity(client)["damages"][known:]
        return {one["stream"]: one["open"] for one in found}

    wait_for(lambda: new() == {"LOGS": True, "METRICS": True}, "the damages")
    for run_id in runs:
        assert client.runs.wait(run_id, timeout=90).state == "succeeded"
    client.transport.json("POST", "/v1/admin/integrity/accept")
