"""Helpers of the read model's tests: databases, facts with their subjects, and the contents of the tables."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from penstock_adapters.sql import tables, writer
from penstock_adapters.sql.engine import Database
from penstock_core.facts import AttemptFinished, AttemptRequested, Fact, Outcome, RunFinished, RunRequested
from penstock_core.pipeline.values import ArtifactRef, Inline, Value
from penstock_core.ports import Recorded

STREAM = "RUNS"
_IGNORED = {"alembic_version", "checkpoints"}


def recorded(facts: Iterable[Fact], start: int = 1) -> list[Recorded]:
    """Return facts as they are stored in the log."""
    return [Recorded(seq, 1_700_000_000.0 + seq, fact) for seq, fact in enumerate(facts, start)]


def above(facts: Sequence[Recorded], upto: int) -> writer.Read:
    """Reads the facts of a batch."""
    return functools.partial(_above, facts, upto)


def _above(facts: Sequence[Recorded], upto: int, last: int) -> list[Recorded]:
    return [record for record in facts if last < record.seq <= upto]


def apply(database: Database, facts: Sequence[Recorded], size: int = 1000) -> None:
    """Project facts in batches of `size`."""
    if not facts:
        return
    last = facts[0].seq - 1
    while last < facts[-1].seq:
        upto = min(last + size, facts[-1].seq)
        last = writer.apply(database, STREAM, last, upto, above(facts, upto))


def rows(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Return the contents of all tables, in order."""
    with database.read.begin() as connection:
        return {
            name: sorted((tuple(row) for row in connection.execute(sa.select(table))), key=repr)
            for name, table in tables.metadata.tables.items()
            if name not in _IGNORED
        }


def empty(database: Database) -> None:
    """Delete all rows."""
    with database.write.begin() as connection:
        for table in tables.metadata.sorted_tables:
            connection.execute(sa.delete(table))
    writer.begin(database, STREAM, "log", 1 << 60)


def requested(run_id: str, **more: Any) -> RunRequested:
    fields: dict[str, Any] = {"project": "default", "pipeline": "p", "version": 1, "requested_at": 1000.0} | more
    return RunRequested(run_id=run_id, **fields)


def attempt(run_id: str, key: str = "fit", number: int = 1, **inputs: Value) -> AttemptRequested:
    return AttemptRequested(
        run_id=run_id,
        key=key,
        attempt=number,
        pool="default",
        project="default",
        pipeline="p",
        version=1,
        entrypoint="m:f",
        inputs=inputs,
    )


def ended(run_id: str, key: str = "fit", number: int = 1, **more: Any) -> AttemptFinished:
    fields: dict[str, Any] = {"outcome": Outcome.SUCCEEDED, "started_at": 1001.0, "finished_at": 1002.0} | more
    return AttemptFinished(run_id=run_id, key=key, attempt=number, **fields)


def whole(
    run_id: str, *, metrics: dict[str, float], outcome: Outcome = Outcome.SUCCEEDED, **more: Any
) -> Iterator[Fact]:
    """A run of one step, from its request to its end."""
    yield requested(run_id, **more)
    yield attempt(run_id)
    yield ended(run_id, metrics=metrics)
    yield RunFinished(run_id=run_id, outcome=Outcome.SUCCEEDED, outputs={"result": Inline(1)})


def artifact(letter: str) -> ArtifactRef:
    return ArtifactRef(sha256=letter * 64, size=3, media_type="application/json", format="json")
