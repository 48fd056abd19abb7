"""The projection and its tables, the same on SQLite and on PostgreSQL: one suite, two databases."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock_adapters.sql import engine, fact_copy, lineage, migrate, run_details, tables, writer
from penstock_adapters.sql.engine import Database
from penstock_adapters.sql.errors import DatabaseError, SequenceGapError, UnwritableFactError
from penstock_adapters.sql.fact_copy import CopiedFact, DamagedRun
from penstock_adapters.sql.read_model import open_read_model
from penstock_contracts import fact_codec, subjects
from penstock_core.errors import UnavailableError
from penstock_core.facts import (
    AttemptFinished,
    AttemptStarted,
    Fact,
    Outcome,
    RunAdmitted,
    RunDeleted,
    RunFinished,
    RunRequested,
    StepSkipped,
)
from penstock_core.pipeline.values import Inline, Items, ResultOf, ResultRef, Stored
from penstock_core.ports import Recorded
from penstock_core.run import machine
from penstock_core.run.machine import Plan, Status
from penstock_testkit import generators, histories, strategies
from penstock_testkit.servers.postgres import PostgresServer

from . import read_model_helpers as at

HISTORIES = sorted((Path(__file__).parents[1] / "histories").glob("*.jsonl"))


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    if request.param == "sqlite":
        database = engine.connect(tmp_path_factory.mktemp("read-model") / "read-model.db")
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        database = engine.connect(server.database())
    migrate.migrate(database)
    yield database
    database.close()


@pytest.fixture
def database(shared: Database) -> Database:
    at.empty(shared)
    return shared


# ------------------------------------------------------------------------------------------------------------- tables


def fresh(database: Database, request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    if database.postgres:
        return engine.connect(request.getfixturevalue("postgres_server").database())
    return engine.connect(tmp_path / "fresh.db")


def test_migrations_create_the_declared_tables(
    database: Database, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    migrated = fresh(database, request, tmp_path)
    with migrated.write.begin() as connection:
        migrate.upgrade(connection)
        assert connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar() == migrate.HEAD
    for one in (migrated, database):
        with one.write.begin() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, tables.metadata) == []
    assert indexes(migrated) == indexes(database)
    migrate.migrate(migrated)  # nothing to do
    migrated.close()


def indexes(database: Database) -> dict[str, Any]:
    looked = sa.inspect(database.write)
    return {
        name: sorted((index["name"], index["column_names"]) for index in looked.get_indexes(name))
        for name in tables.metadata.tables
    }


def test_the_head_is_the_newest_migration() -> None:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "penstock_adapters.sql:migrations")
    assert ScriptDirectory.from_config(config).get_current_head() == migrate.HEAD


def test_several_migrators_at_once(database: Database, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    one = fresh(database, request, tmp_path)
    failures: list[BaseException] = []

    def go() -> None:
        try:
            migrate.migrate(one)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    one.close()


def test_a_database_of_a_newer_version_is_refused(
    database: Database, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    one = fresh(database, request, tmp_path)
    migrate.migrate(one)
    with one.write.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseError, match=r"newer version of Penstock .*PENSTOCK_DATABASE_URL"):
        migrate.migrate(one)
    one.close()


@pytest.mark.parametrize("url", ["nonsense", "mysql://host/db", "sqlite://", "http://x"])
def test_an_invalid_address_error_shows_valid_forms(url: str) -> None:
    with pytest.raises(DatabaseError, match="postgresql://user:password@host/name"):
        engine.connect(url)


def test_an_unreachable_server_is_a_retryable_error() -> None:
    away = engine.connect("postgresql://nobody@127.0.0.1:9/none")
    with pytest.raises(UnavailableError):
        migrate.migrate(away)
    assert "nobody" in away.name
    away.close()


def test_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "read-model.db"
    path.write_bytes(b"this is no database at all, whatever its name says" * 100)
    model = open_read_model(path)
    assert model.run("none") is None
    model.close()
    assert (tmp_path / "read-model.db.damaged").read_bytes().startswith(b"this is no database")


# --------------------------------------------------------------------------------------------------------- projection


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
def test_rows_of_recorded_runs_match_their_folded_state(database: Database, path: Path) -> None:
    history = histories.load(path)
    at.apply(database, [Recorded(n, record.at, record.fact) for n, record in enumerate(history.recorded, 1)])
    row = run_details.run(database, history.run_id)
    state = history.fold()
    if state.requested is None:
        assert row is None
        return
    assert row is not None
    assert row["state"] == (state.finished.outcome.value if state.finished else "running")
    assert row["error"] == (state.finished.error if state.finished else None)
    last: dict[str, dict[str, Any]] = {}
    for one in row["attempts"]:
        if one["attempt"] >= last.get(one["key"], {"attempt": -1})["attempt"]:
            last[one["key"]] = one
    for key, step in state.steps.items():
        if step.status is Status.WAITING:
            continue
        shown = last[key]["state"]
        ends = {Status.FAILED: ("timed_out", "lost"), Status.RETRYING: ("failed", "timed_out", "lost")}
        assert shown == "expanded" or shown in (step.status.value, *ends.get(step.status, ())), key
        measured = {one["name"]: one["value"] for one in row["metrics"] if one["key"] == key}
        assert measured == step.metrics or step.attempt > 1


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_the_batch_size_does_not_change_the_rows(shared: Database, data: st.DataObject) -> None:
    pipeline = generators.pipeline(lambda n: data.draw(strategies.below(n)), nodes=4)
    # The broker accepts one fact per subject.
    drawn = st.lists(
        strategies.facts(pipeline), min_size=1, max_size=12, unique_by=lambda fact: (fact.run_id, fact.tail)
    )
    # The request of a run comes first.
    facts = at.recorded(sorted(data.draw(drawn), key=lambda fact: not isinstance(fact, RunRequested)))
    at.empty(shared)
    at.apply(shared, facts)
    expected = at.rows(shared)
    at.empty(shared)
    at.apply(shared, facts, size=data.draw(st.integers(1, 5)))
    assert at.rows(shared) == expected
    at.empty(shared)
    at.apply(shared, facts, size=3)
    # Project again, as after a truncated log.
    with shared.write.begin() as connection:
        connection.execute(sa.update(tables.checkpoints).values(last_seq=0))
    at.apply(shared, facts, size=4)
    assert at.rows(shared) == expected


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_rows_of_driven_runs_match_their_folded_state(shared: Database, data: st.DataObject) -> None:
    pipeline = data.draw(strategies.pipelines())
    plan = Plan(pipeline)
    facts: list[Fact] = [at.requested("run0", pipeline="p"), RunAdmitted(run_id="run0")]
    state = machine.fold("run0", plan, facts)
    outcomes = st.sampled_from([Outcome.SUCCEEDED] * 4 + [Outcome.FAILED, Outcome.LOST, Outcome.CACHED])
    for _ in range(30):
        for fact in machine.decide(state):
            facts.append(fact)
            state = machine.evolve(state, fact)
            if fact.tail.count("requested") and "step" in fact.tail:
                end = AttemptFinished(
                    run_id="run0", key=fact.key, attempt=fact.attempt, outcome=data.draw(outcomes), finished_at=5.0
                )
                facts.append(end)
                state = machine.evolve(state, end)
    at.empty(shared)
    at.apply(shared, at.recorded(facts), size=data.draw(st.integers(1, 9)))
    row = run_details.run(shared, "run0")
    assert row is not None
    assert row["state"] == (state.finished.outcome.value if state.finished else "running")
    assert {(one["key"], one["attempt"]) for one in row["attempts"]} == {
        (fact.key, getattr(fact, "attempt", 0)) for fact in facts if hasattr(fact, "key")
    }


def test_times_and_states_of_a_run(database: Database) -> None:
    facts = at.recorded(
        [
            at.requested("a", labels={"team": "x"}, trigger={"type": "cron"}, requested_at=1_699_999_000.0),
            at.attempt("a", data=Inline([1] * 1000)),
            AttemptStarted(run_id="a", key="fit", attempt=1, executor="e1", host="h", started_at=1001.0),
            at.ended("a", metrics={"loss": 0.5, "bad": float("inf")}, params={"depth": 3, "kind": "tree\0"}),
            StepSkipped(run_id="a", key="report", reason="why"),
            RunFinished(run_id="a", outcome=Outcome.FAILED, error="no\0good"),
        ]
    )
    states = []
    for n in range(1, len(facts) + 1):
        at.apply(database, facts[n - 1 : n])
        row = run_details.run(database, "a")
        assert row is not None
        states.append((row["state"], [one["state"] for one in row["attempts"]]))
    assert states == [
        ("queued", []),
        ("running", ["queued"]),
        ("running", ["running"]),
        ("running", ["succeeded"]),
        ("running", ["succeeded", "skipped"]),
        ("failed", ["succeeded", "skipped"]),
    ]
    assert (row["trigger_type"], row["started_at"], row["finished_at"]) == ("cron", facts[1].at, facts[5].at)
    assert row["duration"] == facts[5].at - 1_699_999_000.0
    assert row["error"] == "no\N{REPLACEMENT CHARACTER}good"
    assert {(one["name"], one["value"]) for one in row["metrics"]} == {("loss", 0.5)}
    assert {(one["name"], one["number"]) for one in row["params"]} == {("depth", 3.0), ("kind", None)}
    assert len(row["attempts"][0]["inputs"]) < 700


def test_an_end_projected_before_its_request_is_kept(database: Database) -> None:
    facts = at.recorded([at.requested("a"), at.ended("a", outcome=Outcome.CANCELLED), at.attempt("a")])
    at.apply(database, facts, size=1)
    row = run_details.run(database, "a")
    assert row is not None
    assert [(one["state"], one["pool"]) for one in row["attempts"]] == [("cancelled", "default")]


def test_artifacts_referenced_by_a_result_are_found(database: Database) -> None:
    made = {"result": Items((Stored(at.artifact("a")), Inline(1))), "other": Stored(at.artifact("b"))}
    facts = at.recorded(
        [
            at.requested("r", inputs={"file": Stored(at.artifact("f"))}),
            at.ended("r", "make", outputs=made, artifacts={"plot": Stored(at.artifact("c"))}),
            at.attempt("r", "read", data=ResultOf(ResultRef(key="make", attempt=1, output="result"))),
        ]
    )
    for size in (1, 10):
        at.empty(database)
        at.apply(database, facts, size=size)
        row = run_details.run(database, "r")
        assert row is not None
        assert {(one["key"], one["direction"], one["name"], one["sha256"][0]) for one in row["uses"]} == {
            ("", "in", "file", "f"),
            ("make", "out", "result", "a"),
            ("make", "out", "other", "b"),
            ("make", "logged", "plot", "c"),
            ("read", "in", "data", "a"),
        }


def test_values_that_no_database_can_store_are_skipped(database: Database) -> None:
    bad = RunRequested(run_id="a", project="default", pipeline="p", version=1, labels={"x": "\ud800"})
    facts = at.recorded([bad, at.requested("b")])
    with pytest.raises(UnwritableFactError):
        writer.apply(database, at.STREAM, 0, 2, at.above(facts, 2))
    assert at.rows(database)["runs"] == []
    assert writer.apply(database, at.STREAM, 0, 1, lambda _: []) == 1
    assert writer.apply(database, at.STREAM, 1, 2, at.above(facts, 2)) == 2


# --------------------------------------------------------------------------------------------------------- checkpoints


def test_a_second_projector_is_idempotent(database: Database) -> None:
    facts = at.recorded(fact for n in range(20) for fact in at.whole(f"r{n}", metrics={"loss": n / 20}))
    at.apply(database, facts, size=7)
    before = at.rows(database)
    never = pytest.fail
    assert writer.apply(database, at.STREAM, 0, 30, lambda _: never("it was written already")) == len(facts)
    assert at.rows(database) == before
    seen: list[int] = []
    more = [*facts, *at.recorded([at.requested("late")], start=len(facts) + 1)]

    def read(last: int) -> list[Recorded]:
        seen.append(last)
        return [record for record in more if record.seq > last]

    assert writer.apply(database, at.STREAM, 40, len(more), read) == len(more)
    assert seen == [len(facts)]


def test_concurrent_projectors(database: Database) -> None:
    facts = at.recorded(fact for n in range(15) for fact in at.whole(f"r{n}", metrics={"loss": n / 15}))
    at.apply(database, facts)
    expected = at.rows(database)
    at.empty(database)
    threads = [threading.Thread(target=at.apply, args=(database, facts, size)) for size in (3, 5, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert at.rows(database) == expected


def test_a_gap_in_sequences_is_rejected(database: Database) -> None:
    with pytest.raises(SequenceGapError) as caught:
        writer.apply(database, at.STREAM, 5, 9, lambda _: [])
    assert caught.value.last == 0


def test_a_replaced_log_is_projected_from_its_beginning(database: Database) -> None:
    at.apply(database, at.recorded(at.whole("old", metrics={})))
    assert writer.begin(database, at.STREAM, "log", 100) == 4
    assert writer.begin(database, at.STREAM, "another", 2) == 0
    assert run_details.run(database, "old") is not None


def copied(facts: Sequence[Recorded]) -> list[CopiedFact]:
    return [CopiedFact(fact_codec.subject(one.fact), one.seq, fact_codec.encode(one.fact)) for one in facts]


def test_rows_beyond_a_truncated_log_are_kept_and_their_facts_marked_as_lost(database: Database) -> None:
    facts = at.recorded([*at.whole("a", metrics={}), at.requested("b"), at.attempt("b"), at.requested("c")])
    writer.apply(database, at.STREAM, 0, 7, lambda _: facts, copied(facts))
    # The log lost the attempt of run b, and all facts of run c.
    assert writer.begin(database, at.STREAM, "log", 5) == 0
    assert {row[0] for row in at.rows(database)["runs"]} == {"a", "b", "c"}
    assert fact_copy.damaged_runs(database) == [DamagedRun("b", 1), DamagedRun("c", 1)]
    # New messages have the sequence numbers of lost ones. One of them is on the subject of a lost fact.
    new = at.recorded([at.attempt("b"), at.ended("b")], 6)
    writer.apply(database, at.STREAM, 0, 7, lambda _: new, copied(new))
    [request, attempt, end] = fact_copy.begin_restore(database, "b", [])
    assert [one.seq for one in (request, attempt, end)] == [5, 6, 7]
    assert attempt.data == fact_codec.encode(facts[5].fact)
    assert fact_copy.damaged_runs(database) == [DamagedRun("b", 3), DamagedRun("c", 1)]
    fact_copy.end_restore(database, "b")
    assert fact_copy.damaged_runs(database) == [DamagedRun("c", 1)]


def test_the_copy_of_the_log_follows_archives_and_deletions(database: Database) -> None:
    facts = at.recorded(
        [
            *at.whole("a", metrics={}),
            *at.whole("b", metrics={}),
            RunDeleted(run_id="b", project="default", pipeline="p", deleted_at=1.0, reason=""),
        ]
    )
    writer.apply(database, at.STREAM, 0, 8, lambda _: facts[:-1], copied(facts[:-1]))
    assert len(fact_copy.between(database, 0, 100)) == 8
    writer.apply(database, at.STREAM, 8, 9, lambda _: facts[-1:], copied(facts[-1:]))
    assert {subject.split(".")[2] for _, subject in fact_copy.between(database, 0, 100)} == {"a"}
    archived = CopiedFact(subjects.run("a", "archived"), 10, b"{}")
    writer.apply(database, at.STREAM, 9, 10, lambda _: [], [archived])
    tails = [subject.rpartition(".")[2] for _, subject in fact_copy.between(database, 0, 100)]
    assert sorted(tails) == ["archived", "finished", "requested"]


def test_a_rebuild_gives_the_same_rows(database: Database) -> None:
    facts = at.recorded(fact for n in range(9) for fact in at.whole(f"r{n}", metrics={"loss": 1.0}, labels={"a": "b"}))
    at.apply(database, facts)
    before = at.rows(database)
    writer.clear(database, at.STREAM)
    assert at.rows(database)["runs"] == at.rows(database)["metrics"] == []
    at.apply(database, facts, size=5)
    assert at.rows(database) == before


# ------------------------------------------------------------------------------------------------------------- lineage


def test_lineage_follows_artifacts_upstream_and_downstream(database: Database) -> None:
    one, two, three = (Stored(at.artifact(letter)) for letter in "abc")
    facts = at.recorded(
        [
            at.requested("r1", pipeline="load"),
            at.ended("r1", "load", outputs={"result": one}),
            at.attempt("r1", "fit", data=one),
            at.ended("r1", "fit", outputs={"model": two}, artifacts={"plot": Stored(at.artifact("d"))}),
            at.requested("r2", pipeline="score", inputs={"model": two}),
            at.attempt("r2", "score", model=two),
            at.ended("r2", "score", outputs={"result": three}),
        ]
    )
    at.apply(database, facts)
    found = lineage.lineage(database, "default", "b" * 64)
    assert found is not None
    assert [(row["key"], row["level"]) for row in found["up"]] == [("fit", 1), ("load", 2)]
    assert [(row["run_id"], row["key"], row["level"]) for row in found["down"]] == [("r2", "", 1), ("r2", "score", 1)]
    assert found["up"][0]["reads"] == [{"name": "data", "sha256": "a" * 64}]
    assert {use["name"] for use in found["up"][0]["makes"]} == {"model", "plot"}
    assert found["down"][1]["makes"] == [{"name": "result", "sha256": "c" * 64}]
    assert found["whole"]
    assert [row["key"] for row in lineage.lineage(database, "default", "a" * 64)["down"]] == ["fit", "", "score"]
    assert lineage.lineage(database, "default", "e" * 64) is None
    assert lineage.lineage(database, "another", "b" * 64) is None


def test_unbounded_lineage_is_cut_off(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineage, "MOST", 5)
    shared = Stored(at.artifact("a"))
    facts = at.recorded(
        fact
        for n in range(8)
        for fact in (at.requested(f"r{n}"), at.attempt(f"r{n}", x=shared), at.ended(f"r{n}", outputs={"y": shared}))
    )
    at.apply(database, facts)
    found = lineage.lineage(database, "default", "a" * 64)
    assert found is not None
    assert (len(found["down"]), found["whole"]) == (5, False)
