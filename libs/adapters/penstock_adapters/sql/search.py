"""Executes a `RunQuery` with bounded work, whatever the filters.

A page is found in one of two ways. Where one of the filters matches few runs, these are fetched and sorted: bounded by
`FEW`. Otherwise many runs match each filter, so the index of the order is scanned from the start of the page, and few
runs are checked for each result. A count, up to `FEW`, decides: planners cannot know how common a pair of name and
value is. `_hidden` keeps a column's index from being chosen instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from penstock_adapters.sql import engine, tables
from penstock_adapters.sql.engine import Database
from penstock_core.queries.search import Condition, Key, Label, RunQuery, Sort

FEW = 5000
"""Largest number of runs that are fetched and sorted."""

SHOWN = (
    "run_id", "project", "pipeline", "version", "state", "created_at", "started_at", "finished_at", "duration",
    "deployment", "trigger", "labels", "error", "requested_by",
)  # fmt: skip
"""Columns of a run in a list."""

_COLUMNS: tuple[str, ...] = (*SHOWN, "sorted_by")
_RUNS = tables.runs.c
_TEXT_LIMIT = 200

Row = dict[str, Any]

_HELD = sa.select(tables.checkpoints.c.last_seq).where(tables.checkpoints.c.stream == "RUNS")


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of `SHOWN`, in order, each with `metrics` and `params` of the names that the query mentions.

    Attributes:
        rows: the runs.
        end: start of the next page; None at the end.
        last_seq: sequence number up to which the tables had the log.
    """

    rows: list[Row]
    end: Key | None
    last_seq: int


@dataclass(frozen=True, slots=True)
class ActiveRuns:
    """Whether `any` run of any project has not finished, as far as the tables had the log: up to `last_seq`."""

    any: bool
    last_seq: int


def active_runs(database: Database) -> ActiveRuns:
    """Return whether a run has not finished."""
    active = sa.select(_RUNS.run_id).where(_RUNS.state.in_(("queued", "running"))).limit(1)
    with engine.errors("runs cannot be listed"), database.read.begin() as connection:
        last = connection.execute(_HELD).scalar() or 0
        return ActiveRuns(connection.execute(active).first() is not None, last)


def page(database: Database, query: RunQuery) -> Page:
    """The runs of a page."""
    with engine.errors("runs cannot be listed"), database.read.begin() as connection:
        last = connection.execute(_HELD).scalar() or 0
        found = connection.execute(page_statement(connection, query))
        rows: list[Row] = [dict(zip(_COLUMNS, row, strict=True)) for row in found]
        rows.sort(key=lambda row: (row["sorted_by"], row["run_id"]), reverse=query.sort.descending)
        more = rows[query.limit :]
        rows = rows[: query.limit]
        _add_named(connection, query, rows)
        end = Key(rows[-1]["sorted_by"], rows[-1]["run_id"]) if more else None
        return Page(rows, end, last)


def page_statement(connection: sa.Connection, query: RunQuery) -> sa.Select[*tuple[Any, ...]]:
    """The statement of a page; counts the matches of the filters, to choose the strategy."""
    few = _few(connection, query)
    if few is None and query.sort.name:
        return _walked(query)
    hide = few is not None
    by, source = _order(query.sort)
    statement = sa.select(*(_RUNS[name] for name in SHOWN), by.label("sorted_by")).select_from(source)
    statement = statement.where(*_plain(query, hide=hide), *_named(query), *_sorted(query.sort, hide=hide))
    if few is not None:
        # With a limit, the subquery is executed first; without one, planners may reverse the join.
        statement = statement.where(_RUNS.run_id.in_(few.limit(FEW + 1)))
    return _cut(statement, query, _hidden(by) if hide else by)


def _walked(query: RunQuery) -> sa.Select[*tuple[Any, ...]]:
    """A page in the order of a metric: its index is scanned, and each run is looked up, not joined.

    With a join, planners start with all runs. The rows come in any order.
    """
    table, column = _measured(query.sort)
    fits = sa.select(sa.literal(1)).select_from(tables.runs).where(_RUNS.run_id == table.c.run_id)
    fits = fits.where(*_plain(query, hide=True), *_named(query)).correlate(table).offset(0)
    walk = sa.select(table.c.run_id, column.label("sorted_by")).where(sa.exists(fits), *_sorted(query.sort, hide=False))
    some = _cut(walk, query, column).subquery("walk")
    by, run_id = some.c.sorted_by, some.c.run_id
    return sa.select(*(_RUNS[name] for name in SHOWN), by).join_from(some, tables.runs, run_id == _RUNS.run_id)


def _cut(statement: sa.Select[*tuple[Any, ...]], query: RunQuery, by: Any) -> sa.Select[*tuple[Any, ...]]:
    # The id of the scanned table, so that its index gives the whole order.
    run_id = _measured(query.sort)[0].c.run_id if query.sort.name else _RUNS.run_id
    key = sa.tuple_(by, run_id)
    if query.after is not None:
        place = sa.tuple_(sa.literal(query.after.value, sa.Double), sa.literal(query.after.run_id, tables.Text))
        statement = statement.where(key < place if query.sort.descending else key > place)
    order = (by.desc(), run_id.desc()) if query.sort.descending else (by, run_id)
    return statement.order_by(*order).limit(query.limit + 1)


# ---------------------------------------------------------------------------------------------------------- filters


def _plain(query: RunQuery, *, hide: bool) -> Iterator[Any]:
    """Conditions on columns of `runs`; their indexes are hidden where the runs are already selected."""
    yield _shown(_RUNS.project, hide) == query.project
    for column, value in _equal(query):
        yield _shown(column, hide) == value
    if query.since is not None:
        yield _shown(_RUNS.created_at, hide) >= query.since
    if query.until is not None:
        yield _shown(_RUNS.created_at, hide) < query.until
    if query.prefix:
        yield from _begins(_hidden(_RUNS.run_id), query.prefix)


def _begins(run_id: Any, prefix: str) -> list[Any]:
    """Ids are ASCII and compared byte by byte."""
    return [run_id >= prefix, run_id < prefix + "\x7f"]


def _equal(query: RunQuery) -> list[tuple[Any, str]]:
    given = (
        (_RUNS.pipeline, query.pipeline),
        (_RUNS.state, query.state),
        (_RUNS.trigger_type, query.trigger),
        (_RUNS.deployment, query.deployment),
        (_RUNS.requested_by, query.requested_by),
    )
    return [(column, value) for column, value in given if value is not None]


def _named(query: RunQuery) -> Iterator[Any]:
    """Conditions on labels, parameters and metrics: looked up for each candidate run."""
    for table, where in _named_filters(query):
        # An offset prevents PostgreSQL from turning the lookup into a join with all matches.
        looked_up = sa.select(sa.literal(1)).select_from(table).where(table.c.run_id == _RUNS.run_id, *where)
        yield sa.exists(looked_up.correlate(tables.runs).offset(0))


def _named_filters(query: RunQuery) -> list[tuple[sa.Table, list[Any]]]:
    found: list[tuple[sa.Table, list[Any]]] = [(tables.labels, _label(label)) for label in query.labels]
    found += [(tables.metrics, _compared(tables.metrics.c.value, one)) for one in query.metrics]
    return found + [(tables.params, _param(one)) for one in query.params]


def _label(label: Label) -> list[Any]:
    columns = tables.labels.c
    where = [columns.name == label.name[:_TEXT_LIMIT]]
    return where if label.text is None else [*where, columns.value == label.text[:_TEXT_LIMIT]]


def _param(condition: Condition) -> list[Any]:
    columns = tables.params.c
    if condition.number is not None:
        return _compared(columns.number, condition)
    text = condition.text[:_TEXT_LIMIT]
    return [
        columns.name == condition.name,
        columns.value == text if condition.operator == "=" else columns.value != text,
    ]


def _compared(column: Any, condition: Condition) -> list[Any]:
    # As text, so that the name of the operator is all there is to it.
    compared = column.op(condition.operator if condition.operator != "!=" else "<>", is_comparison=True)
    return [column.table.c.name == condition.name, compared(sa.literal(condition.number, sa.Double))]


def _few(connection: sa.Connection, query: RunQuery) -> sa.Select[*tuple[Any, ...]] | None:
    """The ids of the runs that the narrowest filter matches, if they are few; otherwise None."""
    found = [sa.select(table.c.run_id).where(*where) for table, where in _named_filters(query)]
    mine = sa.select(_RUNS.run_id).where(_RUNS.project == query.project)
    equal = [mine.where(column == value) for column, value in _equal(query)]
    by_time = query.sort.column == "created_at"
    if query.prefix:
        found.append(sa.select(_RUNS.run_id).where(*_begins(_RUNS.run_id, query.prefix)))
    if found or len(equal) > 1 or not by_time:
        found += equal
    if not by_time and (query.since is not None or query.until is not None):
        window = (_RUNS.created_at >= (query.since or 0.0), _RUNS.created_at < (query.until or 1e18))
        found.append(mine.where(*window))
    counts = [(_count(connection, ids), number) for number, ids in enumerate(found)]
    count, number = min(counts, default=(FEW + 1, 0))
    return found[number] if count <= FEW else None


def _count(connection: sa.Connection, ids: sa.Select[*tuple[Any, ...]]) -> int:
    some = ids.limit(FEW + 1).subquery()
    return connection.execute(sa.select(sa.func.count()).select_from(some)).scalar_one()


# ------------------------------------------------------------------------------------------------------------- order


def _order(sort: Sort) -> tuple[Any, Any]:
    """The sort expression, and the source of the rows."""
    if not sort.name:
        return _RUNS[sort.column], tables.runs
    table, column = _measured(sort)
    joined = table.join(tables.runs, table.c.run_id == _RUNS.run_id)
    return column, joined


def _measured(sort: Sort) -> tuple[Any, Any]:
    if sort.column == "metric":
        return tables.metrics, tables.metrics.c.value
    return tables.params, tables.params.c.number


def _sorted(sort: Sort, *, hide: bool) -> Iterator[Any]:
    """Runs without the sort key are omitted; of several steps with the same name the first in order counts."""
    if not sort.name:
        if sort.column != "created_at":
            yield _shown(_RUNS[sort.column], hide).is_not(None)
        return
    table, column = _measured(sort)
    yield _shown(table.c.name, hide) == sort.name
    yield column.is_not(None)
    other = table.alias("other")
    value = other.c[column.name]
    better = value > column if sort.descending else value < column
    first = sa.or_(better, sa.and_(value == column, other.c.key < table.c.key))
    same = (other.c.run_id == table.c.run_id, other.c.name == sort.name, value.is_not(None))
    yield ~sa.exists(sa.select(sa.literal(1)).where(*same, first).correlate(table).offset(0))


def _shown(column: Any, hide: bool) -> Any:
    return _hidden(column) if hide else column


def _hidden(column: Any) -> Any:
    """The same value as an expression without an index."""
    return column + (0.0 if isinstance(column.type, sa.Double) else "")


# ---------------------------------------------------------------------------------------------------- what is shown


def _add_named(connection: sa.Connection, query: RunQuery, rows: list[Row]) -> None:
    """Add the metrics and parameters of the query; of several matching steps, the last by key counts."""
    by_id = {row["run_id"]: row for row in rows}
    for row in rows:
        row["metrics"], row["params"] = {}, {}
    for table, kind in ((tables.metrics, "metrics"), (tables.params, "params")):
        meant = [sa.and_(*where) for one, where in _named_filters(query) if one is table]
        if meant and rows:
            columns = table.c
            wanted = sa.select(columns.run_id, columns.name, columns.value)
            wanted = wanted.where(columns.run_id.in_(list(by_id)), sa.or_(*meant))
            for found in connection.execute(wanted.order_by(columns.run_id, columns.name, columns.key)):
                by_id[found.run_id][kind][found.name] = found.value
    if query.sort.name:
        for row in rows:
            row[f"{query.sort.column}s"][query.sort.name] = row["sorted_by"]
