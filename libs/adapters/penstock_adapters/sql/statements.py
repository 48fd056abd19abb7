"""The statements that write `Changes`. All are upserts: writing the same changes again leaves the same rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from penstock_adapters.sql import changes, tables
from penstock_adapters.sql.changes import AttemptChange, AttemptId, Changes, LineageLink, Row, RunChange


def insert(connection: sa.Connection, table: sa.Table) -> Any:
    """An INSERT that knows ON CONFLICT, in the connection's dialect."""
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)


def upsert(connection: sa.Connection, table: sa.Table, rows: Sequence[Row]) -> None:
    """Insert rows, replacing the given columns of those that are there. All rows have the same columns."""
    if rows:
        statement = insert(connection, table)
        columns = {name: statement.excluded[name] for name in rows[0] if not table.c[name].primary_key}
        keys = list(table.primary_key)
        made = statement.on_conflict_do_update(index_elements=keys, set_=columns) if columns else statement
        connection.execute(made, rows)


def write(connection: sa.Connection, found: Changes) -> None:
    """Write everything that changed."""
    _write_runs(connection, found.runs)
    _write_attempts(connection, found.attempts)
    for name, rows in found.named.items():
        upsert(connection, tables.metadata.tables[name], list(rows.values()))
    if found.artifacts:
        known = insert(connection, tables.artifacts).on_conflict_do_nothing()
        connection.execute(known, list(found.artifacts.values()))
    upsert(connection, tables.uses, list(found.uses.values()))
    _write_links(connection, found.links)
    for run_id in found.deleted:
        for table in (*tables.OF_RUNS, tables.series, tables.facts):
            connection.execute(sa.delete(table).where(table.c.run_id == run_id))


def _write_runs(connection: sa.Connection, found: dict[str, RunChange]) -> None:
    upsert(connection, tables.runs, [_whole_run(change) for change in found.values() if change.new])
    old = [(run_id, change) for run_id, change in found.items() if not change.new]
    if old:
        rows = [{"id": run_id, "begun": change.started_at, "seq_": change.last_seq} for run_id, change in old]
        connection.execute(_TOUCH, rows)
    if ended := [{"id": run_id, **change.changed} for run_id, change in old if change.changed]:
        connection.execute(_END, [_prefixed(row) for row in ended])


def _whole_run(change: RunChange) -> Row:
    row = change.new | {"last_seq": change.last_seq}
    if change.started_at is not None:
        row |= {"state": "running", "started_at": change.started_at}
    if change.changed:
        row |= change.changed | {"duration": max(0.0, change.changed["finished_at"] - row["created_at"])}
    return row


_RUNS = tables.runs.c
_BEGUN = sa.cast(sa.bindparam("begun", type_=sa.Double), sa.Double)
_TOUCH = (
    sa.update(tables.runs)
    .where(_RUNS.run_id == sa.bindparam("id", type_=tables.Text))
    .values(
        last_seq=sa.case(
            (_RUNS.last_seq < sa.bindparam("seq_", type_=sa.BigInteger), sa.bindparam("seq_", type_=sa.BigInteger)),
            else_=_RUNS.last_seq,
        ),
        started_at=sa.func.coalesce(_RUNS.started_at, _BEGUN),
        state=sa.case(
            (sa.and_(_RUNS.state == "queued", _BEGUN.is_not(None)), sa.literal("running", tables.Text)),
            else_=_RUNS.state,
        ),
    )
)
_LASTED = sa.bindparam("new_finished_at", type_=sa.Double) - _RUNS.created_at
_END = (
    sa.update(tables.runs)
    .where(_RUNS.run_id == sa.bindparam("id", type_=tables.Text))
    .values(
        state=sa.bindparam("new_state", type_=tables.Text),
        finished_at=sa.bindparam("new_finished_at", type_=sa.Double),
        duration=sa.case((_LASTED < 0, 0.0), else_=_LASTED),
        error=sa.bindparam("new_error", type_=tables.Text),
        outputs=sa.bindparam("new_outputs", type_=tables.Text),
    )
)


def _prefixed(row: Row) -> Row:
    return {name if name == "id" else f"new_{name}": value for name, value in row.items()}


def _write_attempts(connection: sa.Connection, found: dict[AttemptId, AttemptChange]) -> None:
    alike: dict[tuple[str, ...], list[tuple[bool, Row]]] = defaultdict(list)
    for attempt, change in found.items():
        row = {**attempt._asdict(), **{name: change.row[name] for name in sorted(change.row)}}
        alike[tuple(row)].append((change.ended, row))
    for group in alike.values():
        for ended in (True, False):
            _upsert_attempts(connection, [row for over, row in group if over is ended], ended=ended)


def _upsert_attempts(connection: sa.Connection, rows: list[Row], *, ended: bool) -> None:
    if not rows:
        return
    table = tables.attempts
    statement = insert(connection, table)
    excluded = statement.excluded
    columns = {name: excluded[name] for name in rows[0] if not table.c[name].primary_key}
    if not ended:
        # An end may be known before its request: what has ended stays so.
        still_open = sa.or_(*(table.c.state == state for state in changes.OPEN))
        columns["state"] = sa.case((still_open, excluded.state), else_=table.c.state)
    connection.execute(statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=columns), rows)


def _write_links(connection: sa.Connection, links: Sequence[LineageLink]) -> None:
    columns = ["run_id", "key", "attempt", "direction", "name", "sha256", "seq"]
    for made, exact in ((_MADE, True), (_ITEMS, False)):
        rows = [_link(link) for link in links if bool(link.maker.attempt) is exact]
        if rows:
            statement = insert(connection, tables.uses).from_select(columns, made).on_conflict_do_nothing()
            connection.execute(statement, rows)


def _link(link: LineageLink) -> Row:
    maker = {"maker_run": link.maker.run_id, "maker_output": link.output}
    if link.maker.attempt:
        maker |= {"maker_key": link.maker.key, "maker_attempt": link.maker.attempt}
    else:
        maker |= {"first_key": f"{link.maker.key}[", "beyond_key": f"{link.maker.key}\\"}
    reader = {f"reader_{name}": value for name, value in link.reader._asdict().items()}
    return {**reader, **maker, "as_name": link.name, "at_seq": link.seq}


def _text(name: str) -> Any:
    return sa.bindparam(name, type_=tables.Text)


_USES = tables.uses.c
_READ = sa.select(
    _text("reader_run_id"),
    _text("reader_key"),
    sa.bindparam("reader_attempt", type_=sa.Integer),
    sa.literal("in", tables.Text),
    _text("as_name"),
    _USES.sha256,
    sa.bindparam("at_seq", type_=sa.BigInteger),
).where(_USES.run_id == _text("maker_run"), _USES.direction == "out", _USES.name == _text("maker_output"))
_MADE = _READ.where(_USES.key == _text("maker_key"), _USES.attempt == sa.bindparam("maker_attempt", type_=sa.Integer))
# `train[0]`, `train[1]` …: the backslash follows the bracket.
_ITEMS = _READ.where(_USES.key >= _text("first_key"), _USES.key < _text("beyond_key")).distinct()
