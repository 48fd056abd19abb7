"""One run with all of its rows: a few index ranges by its id."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from penstock_adapters.sql import engine, tables
from penstock_adapters.sql.engine import Database

Row = dict[str, Any]


def run(database: Database, run_id: str) -> Row | None:
    """The row of a run with `attempts`, `labels_set`, `params`, `metrics` and `uses`, each a list of rows; or None.

    Attempts and uses are in the order of the log.
    """
    with engine.errors("the run cannot be read"), database.read.begin() as connection:
        found = _rows(connection, tables.runs, run_id)
        if not found:
            return None
        row = found[0]
        row["attempts"] = _rows(connection, tables.attempts, run_id)
        row["attempts"].sort(key=lambda attempt: (attempt["seq"], attempt["key"], attempt["attempt"]))
        row["uses"] = sorted(_rows(connection, tables.uses, run_id), key=lambda use: use["seq"])
        row["labels_set"] = _rows(connection, tables.labels, run_id)
        row["params"] = _rows(connection, tables.params, run_id)
        row["metrics"] = _rows(connection, tables.metrics, run_id)
        return row


def _rows(connection: sa.Connection, table: sa.Table, run_id: str) -> list[Row]:
    names = [str(column.name) for column in table.c]  # plain str: encoders refuse the library's subclass
    found = connection.execute(sa.select(table).where(table.c.run_id == run_id))
    return [dict(zip(names, row, strict=True)) for row in found]
