"""Runs that move from the log to the archive, on the real services: every API still serves them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import nats
import pytest

from penstock import Client
from penstock.client.retention import JobFailedError
from penstock.errors import NotFoundError, RefusedError
from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_contracts import subjects
from penstock_core.facts import AttemptFinished, Fact, Outcome, RunArchived, RunRequested
from penstock_core.pipeline.values import Inline
from penstock_testkit.servers.cluster import Cluster

PIPELINES = """
from pathlib import Path

from penstock import ask, context, pipeline, step

@step
def load(rows: int) -> list[int]:
    print(f"loading {rows} rows")
    context().log_metric("rows", rows)
    return list(range(rows))

@step
def big(rows: int) -> bytes:
    return b"x" * 200_000 + str(rows).encode()

@step
def twice(n: int) -> int:
    return 2 * n

@step
def total(numbers: list[int], data: bytes, ready: str) -> int:
    if ready and not Path(ready).exists():
        raise FileNotFoundError("not ready")
    return sum(numbers) + len(data)

@pipeline
def flow(rows: int = 4, ready: str = ""):
    return total(twice.map(n=load(rows)), big(rows), ready)

@pipeline
def other(rows: int = 4):
    return total(load(rows), big(rows), "")

@pipeline
def asking():
    return ask("go on?", choices=["yes", "no"])
"""

T = TypeVar("T")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    env = {"PENSTOCK_JANITOR_INTERVAL": "0", "PENSTOCK_GC_GRACE": "1"}
    with Cluster(tmp_path_factory.mktemp("cluster"), env=env) as running:
        running.source("archived.py", PIPELINES)
        yield running


@pytest.fixture
def client(cluster: Cluster) -> Client:
    found = Client(url=cluster.url, token=cluster.token)
    found.pipelines.register(f"{cluster.src / 'archived.py'}:flow")
    return found


def on_bus(cluster: Cluster, use: Callable[[Bus], Awaitable[T]]) -> T:
    async def connected() -> T:
        connection = await nats.connect(cluster.nats.url)
        try:
            return await use(Bus(connection))
        finally:
            await connection.close()

    return asyncio.run(connected())


def log_of(cluster: Cluster, run_id: str) -> list[Fact]:
    """Return the facts of a run in the log."""
    found = on_bus(cluster, lambda bus: NatsRunLog(bus, "test").read(run_id))
    return [record.fact for record in found]


def same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Compared API by API, so that a difference is visible."""
    for door in wanted:
        if isinstance(wanted[door], dict):
            for part in wanted[door]:
                assert found[door].get(part) == wanted[door][part], (door, part)
        assert found[door] == wanted[door], door


def append(cluster: Cluster, *facts: Fact) -> list[bool]:
    return on_bus(cluster, lambda bus: NatsRunLog(bus, "test").append(facts))


def all_of(client: Client, run_id: str, folder: Path) -> dict[str, Any]:
    """Return the responses of every API about a run."""
    view = client.transport.json("GET", f"/v1/runs/{run_id}")
    return {
        "view": view,
        "explain": client.transport.json("GET", f"/v1/runs/{run_id}/explain", query={"step": "total"})["steps"],
        "items": client.transport.json("GET", f"/v1/runs/{run_id}/items", query={"step": "twice"}),
        "value": client.artifacts.load(run_id),
        "step": client.artifacts.load(run_id, step="load"),
        "logs": [(line.step, line.text) for line in client.runs.logs(run_id, follow=False)],
        "events": [
            (event.seq, event.kind) for event in client.runs.events(run_id) if not event.kind.endswith("archived")
        ],
        "history": client.runs.export(run_id, folder).read_text(),
        "row": client.transport.json("GET", "/v1/runs", query={"id": run_id})["runs"],
        "lineage": client.transport.json(
            "GET", f"/v1/artifacts/{view['steps']['big']['outputs']['result']['artifact']['sha256']}/lineage"
        )["up"],
    }


@pytest.mark.timeout(240)
def test_archived_runs_are_served_unchanged(cluster: Cluster, client: Client, tmp_path: Path) -> None:
    run = client.run("flow", {"rows": 5}, wait=True)
    assert run.succeeded
    all_of(client, run.run_id, tmp_path)  # late reports of executors have arrived after this
    before = all_of(client, run.run_id, tmp_path)
    assert before["logs"] and len(log_of(cluster, run.run_id)) > 10

    assert client.runs.archive(run.run_id).archived_count == 1
    left = log_of(cluster, run.run_id)
    assert {type(fact).__name__ for fact in left} == {"RunRequested", "RunFinished", "RunArchived"}
    same(all_of(client, run.run_id, tmp_path), before)
    # Other gateways, and this one after a restart, have not cached the run.
    cluster.kill("gateway")
    cluster.restart("gateway")
    cluster.wait_ready("gateway")
    same(all_of(client, run.run_id, tmp_path), before)
    client.transport.json("POST", "/v1/admin/rebuild")
    deadline = time.monotonic() + 60
    while client.transport.json("GET", "/v1/runs", query={"limit": 1})["lag"] and time.monotonic() < deadline:
        time.sleep(0.05)
    same(all_of(client, run.run_id, tmp_path), before)
    assert client.runs.list("flow", metrics=["rows=5"])[0].run_id == run.run_id
    # Idempotent.
    assert client.runs.archive(run.run_id).archived_count == 0


@pytest.mark.timeout(240)
def test_archived_runs_can_be_resumed_and_rerun(cluster: Cluster, client: Client, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    first = client.run("flow", {"rows": 3, "ready": str(ready)}, wait=True)
    assert first.state == "failed"
    client.runs.archive(first.run_id)
    ready.touch()
    resumed = client.runs.resume(first.run_id)
    assert resumed.resumed is not None and resumed.resumed.steps == 3
    assert client.runs.wait(resumed.run_id, timeout=60).outputs["result"] == {"value": 6 + 200_001}
    again = client.runs.wait(client.runs.rerun(first.run_id).run_id, timeout=60)
    assert again.succeeded
    # A chain of archives: the resumed run refers to results in the archive of the first run.
    client.runs.archive(resumed.run_id)
    assert client.artifacts.load(resumed.run_id, step="twice") == [0, 2, 4]
    third = client.runs.wait(client.runs.resume(resumed.run_id, from_step="total").run_id, timeout=60)
    assert third.outputs == again.outputs


@pytest.mark.timeout(240)
def test_archived_runs_keep_their_keys_and_subjects(cluster: Cluster, client: Client) -> None:
    """A repeated request and late facts create no second run and change nothing."""
    run = client.run("flow", {"rows": 2}, idempotency_key="once", wait=True)
    client.runs.archive(run.run_id)
    again = client.run("flow", {"rows": 2}, idempotency_key="once")
    assert (again.run_id, again.created) == (run.run_id, False)
    with pytest.raises(RefusedError, match="another request"):
        client.run("flow", {"rows": 3}, idempotency_key="once")
    requested = next(fact for fact in log_of(cluster, run.run_id) if isinstance(fact, RunRequested))
    late = AttemptFinished(run_id=run.run_id, key="total", attempt=1, outcome=Outcome.FAILED)
    assert append(cluster, requested) == [False]
    append(cluster, late)
    time.sleep(1.0)
    seen = client.runs.get(run.run_id)
    assert seen.succeeded and seen.steps["total"].state == "succeeded"
    assert not any(type(fact).__name__ == "AttemptRequested" for fact in log_of(cluster, run.run_id))


@pytest.mark.timeout(240)
def test_unfinished_runs_are_not_archived(cluster: Cluster, client: Client) -> None:
    client.pipelines.register(f"{cluster.src / 'archived.py'}:asking")
    run = client.run("asking")
    while not client.questions.list(run.run_id):
        time.sleep(0.05)
    assert client.runs.archive(run.run_id).archived_count == 0
    with pytest.raises(RefusedError, match="it is running: cancel it first"):
        client.runs.delete(run.run_id)
    client.questions.answer(run.run_id, "ask", "yes")
    client.runs.wait(run.run_id)
    assert client.runs.archive(run.run_id).archived_count == 1


@pytest.mark.timeout(240)
def test_a_lost_log_is_restored_from_archived_runs(cluster: Cluster, client: Client, tmp_path: Path) -> None:
    version = client.pipelines.register(f"{cluster.src / 'archived.py'}:flow").version
    long_ago = time.time() - 3600
    given = {"rows": Inline(6), "ready": Inline("")}
    old = RunRequested(
        run_id="lost", project="default", pipeline="flow", version=version, inputs=given, requested_at=long_ago
    )
    append(cluster, old)
    assert client.runs.wait("lost", timeout=60).succeeded
    new = client.run("flow", {"rows": 7}, wait=True)
    for run_id in ("lost", new.run_id):
        assert client.runs.archive(run_id).archived_count == 1
    before = client.runs.export("lost", tmp_path).read_text()
    everything = client.transport.json("GET", "/v1/runs/lost")
    for run_id in ("lost", new.run_id):
        lose(cluster, run_id)
    cluster.kill("gateway")
    cluster.restart("gateway")
    cluster.wait_ready("gateway")
    with pytest.raises(NotFoundError):
        client.runs.get("lost")

    report = client.retention.restore_runs()
    assert report.restored_count == 1
    assert [problem for problem in report.problems if "was requested a moment ago" in problem and new.run_id in problem]
    assert client.transport.json("GET", "/v1/runs/lost") == everything
    assert client.runs.export("lost", tmp_path).read_text() == before
    # Nothing reruns, and a repetition has no effect.
    time.sleep(1.0)
    assert {type(fact).__name__ for fact in log_of(cluster, "lost")} == {"RunRequested", "RunFinished", "RunArchived"}
    assert client.retention.restore_runs("lost").restored_count == 0
    with pytest.raises(JobFailedError, match="there is no archive of run 'never'"):
        client.retention.restore_runs("never")


def lose(cluster: Cluster, run_id: str) -> None:
    """Delete the facts of a run from the log."""
    on_bus(cluster, lambda bus: bus.api(f"STREAM.PURGE.{subjects.RUNS}", {"filter": subjects.run_all(run_id)}))


@pytest.mark.timeout(240)
def test_runs_are_deleted_by_policy_or_request_unless_needed(cluster: Cluster, client: Client) -> None:
    client.pipelines.register(f"{cluster.src / 'archived.py'}:other")
    first = client.run("other", wait=True)
    second = client.runs.wait(client.runs.resume(first.run_id, from_step="total").run_id, timeout=60)
    third = client.run("other", {"rows": 9}, idempotency_key="gone", wait=True)
    with pytest.raises(RefusedError, match=f"run {second.run_id} needs its results"):
        client.runs.delete(first.run_id)
    client.runs.archive(third.run_id)
    client.runs.delete(third.run_id)
    with pytest.raises(NotFoundError):
        client.runs.get(third.run_id)
    assert third.run_id not in [run.run_id for run in client.runs.list("other")]
    with pytest.raises(RefusedError, match=r"belongs to run .*, which was deleted.*use a new key"):
        client.run("other", {"rows": 9}, idempotency_key="gone")

    # The later run is retained, and with it the run whose results it reused.
    client.retention.set("one", pipeline="other", keep_last=1)
    assert client.retention.collect_garbage(dry_run=True).deleted_count == 0
    last = client.run("other", {"rows": 8}, wait=True)
    would = client.retention.collect_garbage(dry_run=True)
    assert {row["run_id"] for row in would.deleted_runs} == {first.run_id, second.run_id}
    assert would.pipelines["other"]["runs"] == 2
    assert len(client.runs.list("other")) == 3, "nothing was deleted"
    done = client.retention.collect_garbage()
    assert done.deleted_count == 2 and not done.problems
    assert [run.run_id for run in client.runs.list("other")] == [last.run_id]
    client.retention.delete("one")


@pytest.mark.parametrize(
    ("wrong", "status", "says"),
    [
        ({"pipeline": "trainig", "keep_for": 5.0}, 404, "Pipeline 'trainig' does not exist"),
        ({"keep_for": -1.0}, 422, "keep_for: -1 seconds: it must be 0 or more"),
        ({"keep_last": -1}, 422, "keep_last: -1 runs"),
        ({"states": ["running"], "keep_for": 5.0}, 422, "is not a terminal state of a run"),
        ({}, 422, "set how long to keep runs"),
        ({"keep_last": 0}, 409, "The policy would delete all"),
    ],
)
def test_dangerous_policies_are_rejected(
    cluster: Cluster, client: Client, wrong: dict[str, Any], status: int, says: str
) -> None:
    client.run("flow", wait=True)
    with pytest.raises(RefusedError, match=says) as refused:
        client.retention.set("wrong", **wrong)
    assert refused.value.status == status
    assert [one.name for one in client.retention.get().policies] == []


@pytest.mark.timeout(240)
@pytest.mark.parametrize("flip", ["middle", "cut"])
def test_a_damaged_archive_is_reported_and_nothing_is_purged(cluster: Cluster, client: Client, flip: str) -> None:
    run = client.run("flow", wait=True)
    other = client.run("flow", wait=True)
    facts = log_of(cluster, run.run_id)

    # The state after a janitor was killed between archive and purge, with an archive damaged since.
    client.runs.archive(other.run_id)
    archived = next(fact for fact in log_of(cluster, other.run_id) if isinstance(fact, RunArchived))
    path = next(Path(cluster.home).rglob(archived.history.sha256))
    data = bytearray(path.read_bytes())
    path.chmod(0o644)
    if flip == "cut":
        path.write_bytes(data[:-20])
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    append(cluster, replace(archived, run_id=run.run_id))
    report = client.retention.collect_garbage()
    reported = [problem for problem in report.problems if run.run_id in problem]
    assert reported and archived.history.sha256 in reported[0] and "damaged" in reported[0]
    assert len(log_of(cluster, run.run_id)) == len(facts) + 1
    lose(cluster, run.run_id)
    client.runs.delete(other.run_id)
    with pytest.raises(NotFoundError):
        client.runs.get(other.run_id)
    json.dumps(report.problems)
