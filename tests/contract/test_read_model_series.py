"""Series in the read model, the same on SQLite and on PostgreSQL."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Sequence

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock_adapters.sql import engine, migrate, series, tables, writer
from penstock_adapters.sql.engine import Database
from penstock_adapters.sql.errors import SequenceGapError
from penstock_adapters.sql.series import PointBatch
from penstock_core.queries.series import Point
from penstock_testkit.servers.postgres import PostgresServer

from . import read_model_helpers as at

STREAM = series.STREAM


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
    writer.begin(shared, STREAM, "log", 1 << 60)
    return shared


def part(
    seq: int, *values: float, first: int = 0, name: str = "loss", key: str = "fit", attempt: int = 1
) -> PointBatch:
    points = [Point(name, first + n, 1000.0 + first + n, value) for n, value in enumerate(values)]
    return PointBatch(seq, "r", key, attempt, first, points)


def measure(database: Database, parts: Sequence[PointBatch], after: int = 0) -> int:
    upto = max(one.seq for one in parts)
    return writer.measure(database, STREAM, after, upto, lambda last: [one for one in parts if one.seq > last])


def values(database: Database, name: str = "loss", limit: int = 10_000) -> list[float]:
    (one,) = series.summaries(database, "r", name)
    found: list[float] = []
    end = None
    while True:
        page = series.page(database, "r", one, end, limit)
        assert len(page.points) <= limit
        found += [point.value for point in page.points]
        end = page.end
        if end is None:
            return found


def test_points_have_steps_and_times(database: Database) -> None:
    points = [Point("a", None, 10.5, math.nan), Point("b", 2**62, 11.5, math.inf), Point("a", -3, 12.5, -math.inf)]
    measure(database, [PointBatch(1, "r", "fit[3]", 2, 0, points)])
    a, b = series.summaries(database, "r")
    assert (a.name, a.key, a.attempt, a.count, a.low, a.high, a.last) == (
        "a",
        "fit[3]",
        2,
        2,
        -math.inf,
        -math.inf,
        -math.inf,
    )
    assert (b.count, b.last_step, b.last_at, b.high) == (1, 2**62, 11.5, math.inf)
    first, second = series.page(database, "r", a).points
    assert math.isnan(first.value)
    assert (first.step, first.at) == (None, 10.5)
    assert second == Point("a", -3, 12.5, -math.inf)


def test_a_series_of_only_nan_has_no_bounds(database: Database) -> None:
    measure(database, [part(1, math.nan, math.nan)])
    (one,) = series.summaries(database, "r")
    assert (one.count, one.low, one.high, math.isnan(one.last)) == (2, None, None, True)


def test_late_and_duplicate_parts_are_stored_once_in_order(database: Database) -> None:
    parts = [part(2, 3.0, 4.0, first=2), part(1, 1.0, 2.0)]
    measure(database, parts)
    assert measure(database, parts) == 2
    later = [part(3, 1.0, 2.0), part(4, 5.0, first=4)]  # the first one again, after the deduplication window
    measure(database, later, after=2)
    assert values(database) == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert values(database, limit=1) == values(database, limit=2) == values(database)
    with pytest.raises(SequenceGapError):
        measure(database, [part(9, 1.0)], after=8)


def test_the_last_attempt_is_used_unless_one_is_given(database: Database) -> None:
    measure(database, [part(1, 1.0), part(2, 2.0, attempt=2), part(3, 3.0, key="other"), part(4, 4.0, name="acc")])
    known = series.summaries(database, "r")
    assert [(one.name, one.key, one.attempt, one.last) for one in known] == [
        ("acc", "fit", 1, 4.0),
        ("loss", "fit", 2, 2.0),
        ("loss", "other", 1, 3.0),
    ]
    assert [one.last for one in series.summaries(database, "r", "loss", "fit", 1)] == [1.0]
    assert [one.key for one in series.summaries(database, "r", key="other")] == ["other"]
    assert len(series.summaries(database, "r", limit=2)) == 2
    assert series.summaries(database, "another") == []


def test_rows_beyond_a_truncated_stream_are_kept(database: Database) -> None:
    measure(database, [part(1, 1.0), part(2, 2.0, first=1), part(3, 3.0, first=2)])
    assert writer.begin(database, STREAM, "log", 2) == 0
    assert values(database) == [1.0, 2.0, 3.0]
    assert writer.begin(database, STREAM, "a new stream", 7) == 0
    assert values(database) == [1.0, 2.0, 3.0]


def test_clearing_one_stream_keeps_the_other(database: Database) -> None:
    measure(database, [part(1, 1.0)])
    at.apply(database, at.recorded(at.whole("r", metrics={"loss": 1.0})))
    writer.clear(database, at.STREAM)
    assert values(database) == [1.0]
    assert at.rows(database)["runs"] == []
    writer.clear(database, STREAM)
    assert series.summaries(database, "r") == []
    assert measure(database, [part(1, 1.0)]) == 1


POINTS = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c\N{SNOWMAN}"]), st.floats(allow_nan=False)), min_size=1, max_size=40
)


@given(POINTS, st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_split_into_messages_does_not_change_the_series(
    database: Database, given_points: list[tuple[str, float]], data: st.DataObject
) -> None:
    points = [Point(name, n, float(n), value) for n, (name, value) in enumerate(given_points)]
    at.empty(database)
    writer.begin(database, STREAM, "log", 1 << 60)
    cuts = sorted({0, len(points), *data.draw(st.lists(st.integers(0, len(points)), max_size=5))})
    parts = [
        PointBatch(seq, "r", "fit", 1, begin, points[begin:end])
        for seq, (begin, end) in enumerate(itertools.pairwise(cuts), 1)
    ]
    measure(database, data.draw(st.permutations(parts)))
    for one in series.summaries(database, "r"):
        mine = [point for point in points if point.name == one.name]
        assert series.page(database, "r", one).points == mine
        assert (one.count, one.low, one.high) == (
            len(mine),
            min(point.value for point in mine),
            max(point.value for point in mine),
        )
        assert one.last == mine[-1].value


def test_a_hundred_thousand_points_take_few_rows_and_little_time(database: Database) -> None:
    parts = [part(n + 1, *(1.0 / (n * 3000 + i + 1) for i in range(3000)), first=n * 3000) for n in range(34)]
    began = time.perf_counter()
    measure(database, parts)
    (one,) = series.summaries(database, "r", "loss")
    thin = series.thinned(database, "r", one, 500)
    took = time.perf_counter() - began
    assert one.count == 102_000
    assert 100 < len(thin.points) <= 500
    assert {thin.points[0].value, thin.points[-1].value} == {1.0, 1 / 102_000}
    with database.read.begin() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(tables.series)).scalar() == 34
    assert took < 30, took
