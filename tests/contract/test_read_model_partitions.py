"""The latest runs of partitions, from both databases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from penstock_adapters.sql import engine, migrate, partitions
from penstock_adapters.sql.engine import Database
from penstock_core.facts import Fact, Outcome, RunFinished, RunRequested

from . import read_model_helpers as at

MANY = 1_200


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    if request.param == "sqlite":
        database = engine.connect(tmp_path_factory.mktemp("partitions") / "read-model.db")
    else:
        database = engine.connect(request.getfixturevalue("postgres_server").database())
    migrate.migrate(database)
    at.empty(database)
    at.apply(database, at.recorded(facts()))
    yield database
    database.close()


def requested(run_id: str, deployment: str, partition: str, created_at: float, project: str = "default") -> Fact:
    trigger = {"type": "backfill", "deployment": deployment, "partition": partition}
    return RunRequested(
        run_id=run_id, project=project, pipeline="p", version=1, trigger=trigger, requested_at=created_at
    )


def facts() -> Iterator[Fact]:
    yield requested("a1", "daily", "2026-01-01", 10.0)
    yield RunFinished(run_id="a1", outcome=Outcome.FAILED, finished_at=11.0)
    yield requested("a2", "daily", "2026-01-01", 20.0)
    yield RunFinished(run_id="a2", outcome=Outcome.SUCCEEDED, finished_at=22.0)
    yield requested("b1", "daily", "2026-01-02", 30.0)
    yield requested("c1", "daily", "2026-01-03", 40.0, project="other")
    yield requested("d1", "other", "2026-01-04", 50.0)
    yield RunRequested(run_id="e1", project="default", pipeline="p", version=1, trigger={"deployment": "daily"})
    for n in range(MANY):
        yield requested(f"m{n}", "many", f"k{n}", 1.0)


def test_the_latest_run_of_each_partition_counts(database: Database) -> None:
    found = partitions.latest(database, "default", "daily", None)
    assert found.rows == {
        "2026-01-01": {"run_id": "a2", "state": "succeeded", "created_at": 20.0, "finished_at": 22.0, "runs": 2},
        "2026-01-02": {"run_id": "b1", "state": "queued", "created_at": 30.0, "finished_at": None, "runs": 1},
    }
    assert found.last_seq == 8 + MANY


def test_some_or_all_of_many_partitions(database: Database) -> None:
    assert len(partitions.latest(database, "default", "many", None).rows) == MANY
    keys = [f"k{n}" for n in range(MANY)]
    assert {*partitions.latest(database, "default", "many", [*keys, "unknown"]).rows} == {*keys}
    assert [*partitions.latest(database, "default", "many", ["k7"]).rows] == ["k7"]
    assert partitions.latest(database, "default", "many", []).rows == {}
