"""The lineage of an artifact, upstream and downstream: attempts and the artifacts between them, level by level."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from penstock_adapters.sql import engine, tables
from penstock_adapters.sql.engine import Database
from penstock_core.artifacts.reach import Reached

LEVELS = 20
"""How far a lineage is followed in each direction."""

MOST = 300
"""Largest number of attempts per level; the result says if some were omitted."""

Row = dict[str, Any]
Attempt = tuple[str, str, int]

_USES = tables.uses.c
_RUNS = tables.runs.c
_MADE = ("out", "logged")
_READ = ("in",)
_SIDES = {"up": (_MADE, _READ), "down": (_READ, _MADE)}


def lineage(database: Database, project: str, sha256: str) -> Row | None:
    """Return the artifact with `up`, the attempts that made it, and `down`, those that used it.

    None if no run of the project refers to it.

    Both are lists of attempts, nearest first, each with its run's pipeline and version and what it read and made.
    `whole` is False where attempts were omitted.
    """
    with engine.errors("the lineage cannot be read"), database.read.begin() as connection:
        names = [str(column.name) for column in tables.artifacts.c]
        found = connection.execute(sa.select(tables.artifacts).where(tables.artifacts.c.sha256 == sha256)).first()
        if found is None or not is_used(connection, project, sha256):
            return None
        row: Row = dict(zip(names, found, strict=True)) | {"whole": True}
        for side, (near, far) in _SIDES.items():
            row[side], whole = _side(connection, project, sha256, near, far)
            row["whole"] = row["whole"] and whole
        return row


def is_used(connection: sa.Connection, project: str, sha256: str) -> bool:
    """Return whether a run of a project read or made an artifact."""
    used = (
        sa.select(_USES.seq)
        .join_from(tables.uses, tables.runs, _USES.run_id == _RUNS.run_id)
        .where(_USES.sha256 == sha256, _RUNS.project == project)
        .limit(1)
    )
    return connection.execute(used).first() is not None


_CHECKED = ("manual", "rerun", "resume")
"""Triggers of runs whose inputs were checked by the gateway: they refer to artifacts that the project could read."""


def reached(database: Database, project: str, sha256: str) -> Reached:
    """Return whether runs of a project made an artifact, or were given it by a principal."""
    with engine.errors("the use of an artifact cannot be read"), database.read.begin() as connection:
        used = (
            sa.select(_USES.direction)
            .join_from(tables.uses, tables.runs, _USES.run_id == _RUNS.run_id)
            .where(_USES.sha256 == sha256, _RUNS.project == project)
        )
        if connection.execute(used.where(_USES.direction.in_(_MADE)).limit(1)).first() is not None:
            return Reached.MADE
        given = used.where(_RUNS.trigger_type.in_(_CHECKED)).limit(1)
        return Reached.GIVEN if connection.execute(given).first() is not None else Reached.NO


def _side(
    connection: sa.Connection, project: str, sha256: str, near: Iterable[str], far: Iterable[str]
) -> tuple[list[Row], bool]:
    found: list[Row] = []
    seen: set[Attempt] = set()
    known, next_ones = {sha256}, {sha256}
    for level in range(1, LEVELS + 1):
        attempts = _attempts(connection, project, next_ones, near)
        new = [row for row in attempts[:MOST] if _id(row) not in seen]
        seen |= {_id(row) for row in new}
        _add_uses(connection, new)
        found += [row | {"level": level} for row in new]
        reached = {use["sha256"] for row in new for use in row["reads" if "in" in far else "makes"]}
        next_ones = reached - known
        known |= reached
        if len(attempts) > MOST or len(next_ones) > MOST:
            return found, False
        if not next_ones:
            return found, True
    return found, False


def _attempts(connection: sa.Connection, project: str, digests: set[str], directions: Iterable[str]) -> list[Row]:
    """The attempts, and runs as such, that read or made one of some artifacts, in the order of the log."""
    columns = (_USES.run_id, _USES.key, _USES.attempt, _RUNS.pipeline, _RUNS.version, _RUNS.state)
    statement = (
        sa.select(*columns, sa.func.min(_USES.seq))
        .join_from(tables.uses, tables.runs, _USES.run_id == _RUNS.run_id)
        .where(_USES.sha256.in_(sorted(digests)), _USES.direction.in_(list(directions)), _RUNS.project == project)
        .group_by(*columns)
        .order_by(sa.func.min(_USES.seq))
        .limit(MOST + 1)
    )
    names = ("run_id", "key", "attempt", "pipeline", "version", "state", "seq")
    return [dict(zip(names, row, strict=True)) for row in connection.execute(statement)]


def _add_uses(connection: sa.Connection, rows: list[Row]) -> None:
    by_id = {_id(row): row for row in rows}
    for row in rows:
        row["reads"], row["makes"] = [], []
    if not rows:
        return
    columns = (_USES.run_id, _USES.key, _USES.attempt, _USES.direction, _USES.name, _USES.sha256)
    mine = sa.tuple_(_USES.run_id, _USES.key, _USES.attempt).in_(list(by_id))
    for run_id, key, number, direction, name, sha256 in connection.execute(sa.select(*columns).where(mine)):
        kind = "reads" if direction in _READ else "makes"
        if direction in (*_READ, *_MADE):
            by_id[run_id, key, number][kind].append({"name": name, "sha256": sha256})


def _id(row: Row) -> Attempt:
    return row["run_id"], row["key"], row["attempt"]
