"""Lists from the tables compared with a list in memory, for both paging methods, and their query plans."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock_adapters.sql import engine, migrate, search
from penstock_adapters.sql.engine import Database
from penstock_core.facts import Fact, Outcome, RunFinished
from penstock_core.pipeline.values import Inline
from penstock_core.queries.search import Condition, Key, Label, RunQuery, Sort

from . import read_model_helpers as at

RUNS = 120


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    if request.param == "sqlite":
        database = engine.connect(tmp_path_factory.mktemp("lists") / "read-model.db")
    else:
        database = engine.connect(request.getfixturevalue("postgres_server").database())
    migrate.migrate(database)
    at.empty(database)
    at.apply(database, at.recorded(fact for run in MEMORY for fact in facts_of(run)))
    yield database
    database.close()


def in_memory() -> list[dict[str, Any]]:
    chosen = random.Random(7)
    return [
        {
            "run_id": f"{chosen.choice('abc')}{n:03d}",
            "project": "default" if n % 10 else "other",
            "pipeline": chosen.choice(["one", "one", "two"]),
            "trigger": chosen.choice(["manual", "cron"]),
            "deployment": chosen.choice([None, "nightly"]),
            "requested_by": f"user:{'ada' if n % 3 else 'grace'}",
            "created_at": 1000.0 + chosen.randrange(30),
            "labels": {"team": chosen.choice("xyz")} | ({"rare": "1"} if n % 40 == 3 else {}),
            "depth": chosen.choice([2, 4, 8, "deep"]),
            "loss": {f"train[{i}]": chosen.randrange(10) / 10 for i in range(chosen.randrange(3))},
            "state": chosen.choice(["queued", "running", "succeeded", "failed"]),
        }
        for n in range(RUNS)
    ]


MEMORY = in_memory()


def facts_of(run: dict[str, Any]) -> Iterator[Fact]:
    run_id = run["run_id"]
    trigger = {"type": run["trigger"]} | ({"deployment": run["deployment"]} if run["deployment"] else {})
    same = {name: run[name] for name in ("project", "pipeline", "labels", "requested_by")}
    yield at.requested(
        run_id,
        trigger=trigger,
        inputs={"depth": Inline(run["depth"])},
        requested_at=run["created_at"],
        **same,
    )
    if run["state"] == "queued":
        run["loss"] = {}
        return
    yield at.attempt(run_id)
    for key, value in run["loss"].items():
        yield at.ended(run_id, key, metrics={"loss": value})
    if run["state"] != "running":
        outcome = Outcome.SUCCEEDED if run["state"] == "succeeded" else Outcome.FAILED
        yield RunFinished(run_id=run_id, outcome=outcome)


for _seq, _fact in enumerate((fact for run in MEMORY for fact in facts_of(run)), 1):
    if isinstance(_fact, RunFinished):
        _run = next(run for run in MEMORY if run["run_id"] == _fact.run_id)
        _run["finished_at"] = 1_700_000_000.0 + _seq
        _run["duration"] = _run["finished_at"] - _run["created_at"]

_COMPARE = {
    "<": float.__lt__, "<=": float.__le__, ">": float.__gt__, ">=": float.__ge__, "=": float.__eq__, "!=": float.__ne__,
}  # fmt: skip


def fits(run: dict[str, Any], query: RunQuery) -> bool:
    plain = (
        (query.pipeline, "pipeline"),
        (query.state, "state"),
        (query.trigger, "trigger"),
        (query.project, "project"),
        (query.requested_by, "requested_by"),
    )
    if any(wanted is not None and run[name] != wanted for wanted, name in plain):
        return False
    if query.deployment is not None and run["deployment"] != query.deployment:
        return False
    if query.prefix and not run["run_id"].startswith(query.prefix):
        return False
    if not (query.since or 0.0) <= run["created_at"] < (query.until or 1e18):
        return False
    for label in query.labels:
        if label.name not in run["labels"] or (label.text is not None and run["labels"][label.name] != label.text):
            return False
    for one in query.metrics:
        compare = _COMPARE[one.operator]
        if one.name != "loss" or not any(compare(value, one.number) for value in run["loss"].values()):
            return False
    return all(_param_fits(run, one) for one in query.params)


def _param_fits(run: dict[str, Any], one: Condition) -> bool:
    if one.number is not None:
        return isinstance(run["depth"], int) and _COMPARE[one.operator](float(run["depth"]), one.number)
    return (str(run["depth"]) == one.text) == (one.operator == "=")


def sorted_by(run: dict[str, Any], sort: Sort) -> float | None:
    if sort.column == "metric":
        values = run["loss"].values()
        return (max if sort.descending else min)(values) if values else None
    if sort.column == "param":
        return float(run["depth"]) if isinstance(run["depth"], int) else None
    return run.get(sort.column)


def expected(query: RunQuery) -> list[str]:
    found = [
        (value, run["run_id"])
        for run in MEMORY
        if fits(run, query) and (value := sorted_by(run, query.sort)) is not None
    ]
    return [run_id for _, run_id in sorted(found, reverse=query.sort.descending)]


operators = st.sampled_from(["<", "<=", ">", ">=", "=", "!="])
sorts = st.sampled_from(
    [Sort(column, "", down) for column in ("created_at", "finished_at", "duration") for down in (True, False)]
    + [Sort("metric", "loss", True), Sort("metric", "loss", False), Sort("param", "depth", False)]
)
labels = st.builds(Label, st.sampled_from(["team", "rare"]), st.sampled_from([None, "x"]))
losses = st.builds(Condition, st.just("loss"), operators, st.just(""), st.sampled_from([0.3, 0.5]))
depths = st.builds(Condition, st.just("depth"), operators, st.just("4"), st.just(4.0)) | st.builds(
    Condition, st.just("depth"), st.sampled_from(["=", "!="]), st.just("deep")
)
times = st.none() | st.integers(1000, 1030).map(float)
queries = st.builds(
    RunQuery,
    project=st.sampled_from(["default", "default", "other"]),
    pipeline=st.sampled_from([None, None, "one", "two", "none"]),
    state=st.sampled_from([None, None, "queued", "running", "succeeded"]),
    trigger=st.sampled_from([None, None, "cron"]),
    deployment=st.sampled_from([None, None, "nightly"]),
    requested_by=st.sampled_from([None, None, "user:ada", "user:nobody"]),
    prefix=st.sampled_from([None, None, "a", "b01"]),
    labels=st.lists(labels, max_size=2).map(tuple),
    since=times,
    until=times,
    metrics=st.lists(losses, max_size=1).map(tuple),
    params=st.lists(depths, max_size=1).map(tuple),
    sort=sorts,
    limit=st.sampled_from([3, 7, 50]),
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(query=queries, few=st.sampled_from([0, 4, 5000]))
def test_pages_match_a_list_in_memory(filled: Database, query: RunQuery, few: int) -> None:
    wanted = expected(query)
    found: list[str] = []
    after: Key | None = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "FEW", few)
        for _ in range(RUNS):
            fields = {name: getattr(query, name) for name in RunQuery.__dataclass_fields__}
            page = search.page(filled, RunQuery(**(fields | {"after": after})))
            found += [row["run_id"] for row in page.rows]
            assert len(page.rows) <= query.limit
            after = page.end
            if after is None:
                break
    assert found == wanted


def test_list_rows_contain_what_they_are_filtered_by(filled: Database) -> None:
    query = RunQuery(
        metrics=(Condition("loss", "<", "0.2", 0.2),),
        params=(Condition("depth", "=", "4", 4.0),),
        sort=Sort("metric", "loss", False),
    )
    rows = search.page(filled, query).rows
    assert rows
    for row in rows:
        assert row["metrics"]["loss"] < 0.2
        assert row["params"] == {"depth": "4"}


PLANS = {
    "newest": RunQuery(),
    "next page": RunQuery(after=Key(1010.0, "a")),
    "of a pipeline": RunQuery(pipeline="one"),
    "of a pipeline in a state": RunQuery(pipeline="one", state="failed"),
    "in a state": RunQuery(state="failed"),
    "of a trigger": RunQuery(trigger="cron"),
    "of a deployment": RunQuery(deployment="nightly"),
    "of a principal": RunQuery(requested_by="user:ada"),
    "of a principal in a pipeline": RunQuery(requested_by="user:ada", pipeline="one"),
    "in a time": RunQuery(since=1001.0, until=1002.0),
    "with a label": RunQuery(labels=(Label("team", "x"),)),
    "with a metric": RunQuery(metrics=(Condition("loss", "<", "", 0.2),)),
    "with a parameter": RunQuery(params=(Condition("depth", "=", "4", 4.0),)),
    "longest": RunQuery(sort=Sort("duration")),
    "last to end": RunQuery(sort=Sort("finished_at"), pipeline="one"),
    "best": RunQuery(sort=Sort("metric", "loss", False)),
    "best of a pipeline": RunQuery(sort=Sort("metric", "loss", False), pipeline="one"),
    "by id": RunQuery(prefix="a0"),
}


@pytest.mark.parametrize("few", [0, 5000], ids=["many fit", "few fit"])
@pytest.mark.parametrize("query", PLANS.values(), ids=PLANS.keys())
def test_no_list_query_scans_a_whole_table(
    filled: Database, query: RunQuery, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "FEW", few)
    with filled.read.begin() as connection:
        steps = plan(connection, search.page_statement(connection, query))
    text = "\n".join(steps)
    assert not [step for step in steps if "SEQ SCAN" in step.upper()], text
    # The page itself is scanned after it is located.
    assert not [step for step in steps if step.startswith("SCAN ") and "INDEX" not in step and step != "SCAN walk"], (
        text
    )
    if few == 0 or query in (PLANS["newest"], PLANS["next page"], PLANS["of a pipeline"]):
        # The index is read in order: sorting would need to read all rows.
        assert "TEMP B-TREE" not in text, text
        assert "Sort" not in text, text


def plan(connection: sa.Connection, statement: Any) -> list[str]:
    text = str(statement.compile(connection, compile_kwargs={"literal_binds": True}))
    if connection.dialect.name == "sqlite":
        text = text.replace("LIMIT ?", "LIMIT -1")  # the dialect's way to have an offset without a limit
        return [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")]
    # Planners scan small tables; these are the plans of large ones.
    for setting in ("enable_seqscan", "enable_sort", "enable_bitmapscan"):
        connection.exec_driver_sql(f"SET LOCAL {setting} = off")
    return [row[0].strip() for row in connection.exec_driver_sql("EXPLAIN " + text.replace("%", "%%"))]
