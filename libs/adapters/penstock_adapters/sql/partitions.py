"""The latest runs of the partitions of a deployment: an index range each, or one scan of the index for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from penstock_adapters.sql import engine, tables
from penstock_adapters.sql.engine import Database

_RUNS = tables.runs.c
_CHUNK = 500
_HELD = sa.select(tables.checkpoints.c.last_seq).where(tables.checkpoints.c.stream == "RUNS")

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LatestRuns:
    """The latest run of each partition that has one, by key: `run_id`, `state`, `created_at`, `finished_at`, `runs`.

    Attributes:
        rows: by key of the partition.
        last_seq: sequence number up to which the tables had the log.
    """

    rows: dict[str, Row]
    last_seq: int


def latest(database: Database, project: str, deployment: str, keys: Sequence[str] | None) -> LatestRuns:
    """Return the latest runs of the partitions of a deployment.

    Args:
        database: the read model.
        project: the project.
        deployment: the deployment.
        keys: of these partitions; None: of all.
    """
    found: dict[str, Row] = {}
    with engine.errors("partitions cannot be listed"), database.read.begin() as connection:
        last = connection.execute(_HELD).scalar() or 0
        parts = [None] if keys is None else [keys[n : n + _CHUNK] for n in range(0, len(keys), _CHUNK)]
        for part in parts:
            for key, *values in connection.execute(_statement(project, deployment, part)):
                found[key] = dict(zip(("run_id", "state", "created_at", "finished_at", "runs"), values, strict=True))
    return LatestRuns(found, last)


def _statement(project: str, deployment: str, keys: Sequence[str] | None) -> sa.Select[*tuple[Any, ...]]:
    newest = sa.over(
        sa.func.row_number(),
        partition_by=_RUNS.partition,
        order_by=(_RUNS.created_at.desc(), _RUNS.run_id.desc()),
    )
    total = sa.over(sa.func.count(), partition_by=_RUNS.partition)
    columns = (_RUNS.partition, _RUNS.run_id, _RUNS.state, _RUNS.created_at, _RUNS.finished_at)
    ranked = sa.select(*columns, total.label("runs"), newest.label("place"))
    ranked = ranked.where(_RUNS.project == project, _RUNS.deployment == deployment)
    ranked = ranked.where(_RUNS.partition.is_not(None) if keys is None else _RUNS.partition.in_(keys))
    some = ranked.subquery("ranked")
    shown = [column for column in some.c if column.name != "place"]
    return sa.select(*shown).where(some.c.place == 1)
