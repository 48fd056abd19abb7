"""The copy of the log of runs, with which a damaged log is repaired.

It has the facts of every run that is not archived, as the log has them: one row a subject, the latest message. Rows and
the checkpoint of the log are written in one transaction. Facts that are missing in the log are marked as lost, and
stay marked until their run is restored; a message that arrives meanwhile on the same subject does not replace them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from penstock_adapters.sql import engine, statements, tables
from penstock_adapters.sql.engine import Database

_FACTS = tables.facts.c
_KEPT = ("requested", "finished", "archived")
"""Facts of an archived run that stay in the log."""


@dataclass(frozen=True, slots=True)
class CopiedFact:
    """A message of the log of runs."""

    subject: str
    seq: int
    data: bytes

    @property
    def run_id(self) -> str:
        """The run that it belongs to."""
        return self.subject.split(".", 3)[2]


@dataclass(frozen=True, slots=True)
class DamagedRun:
    """A run whose log lacks facts that the copy has."""

    run_id: str
    lost: int


def write(connection: sa.Connection, copied: Sequence[CopiedFact]) -> None:
    """Write messages, in log order; then drop what the archives of runs have, and deleted runs."""
    latest = {fact.subject: fact for fact in copied}
    rows = [
        {"subject": fact.subject, "run_id": fact.run_id, "seq": fact.seq, "data": fact.data} for fact in latest.values()
    ]
    if rows:
        made = statements.insert(connection, tables.facts)
        replaced = {name: made.excluded[name] for name in ("seq", "data")}
        made = made.on_conflict_do_update(index_elements=["subject"], set_=replaced, where=_FACTS.lost_after.is_(None))
        connection.execute(made, rows)
    for fact in latest.values():
        kind = fact.subject.split(".", 3)[3]
        if kind in ("archived", "deleted"):
            kept = [f"{fact.subject.removesuffix(kind)}{tail}" for tail in _KEPT] if kind == "archived" else []
            connection.execute(sa.delete(tables.facts).where(_FACTS.run_id == fact.run_id, _FACTS.subject.not_in(kept)))


def mark_lost(connection: sa.Connection, after: int) -> None:
    """Mark the facts above a sequence as lost."""
    connection.execute(
        sa.update(tables.facts).where(_FACTS.seq > after, _FACTS.lost_after.is_(None)).values(lost_after=after)
    )


def between(database: Database, after: int, upto: int) -> list[tuple[int, str]]:
    """The sequences and subjects of the copied facts above `after`, up to `upto`, that are not marked as lost."""
    query = sa.select(_FACTS.seq, _FACTS.subject).where(_FACTS.seq > after, _FACTS.seq <= upto)
    with engine.errors("the copy of the log cannot be read"), database.read.begin() as connection:
        return [(row.seq, row.subject) for row in connection.execute(query.where(_FACTS.lost_after.is_(None)))]


def mark(database: Database, lost: Collection[str], after: int) -> None:
    """Mark the facts at these subjects as lost."""
    with engine.errors("the copy of the log cannot be written"), database.write.begin() as connection:
        for subject in lost:
            connection.execute(sa.update(tables.facts).where(_FACTS.subject == subject).values(lost_after=after))


def damaged_runs(database: Database) -> list[DamagedRun]:
    """The runs with lost facts, oldest first."""
    query = (
        sa.select(_FACTS.run_id, sa.func.count().label("lost"))
        .where(_FACTS.lost_after.is_not(None))
        .group_by(_FACTS.run_id)
        .order_by(sa.func.min(_FACTS.seq))
    )
    with engine.errors("the copy of the log cannot be read"), database.read.begin() as connection:
        return [DamagedRun(row.run_id, row.lost) for row in connection.execute(query)]


def unfinished_runs(database: Database) -> list[str]:
    """The runs that have not finished, as far as the copy knows."""
    runs = tables.runs.c
    query = sa.select(runs.run_id).where(runs.finished_at.is_(None))
    with engine.errors("the read model cannot be read"), database.read.begin() as connection:
        return list(connection.execute(query).scalars())


def begin_restore(database: Database, run_id: str, survivors: Sequence[CopiedFact]) -> list[CopiedFact]:
    """Complete the copy of a run with what the log still has, and mark all of it as lost, durably.

    Afterwards the log of the run can be replaced: a process that is killed meanwhile leaves a copy to start from.

    Returns:
        The facts of the run in the order of the log, those that were written after the loss last.
    """
    with engine.errors("the copy of the log cannot be written"), database.write.begin() as connection:
        cut = connection.execute(sa.select(sa.func.min(_FACTS.lost_after)).where(_FACTS.run_id == run_id)).scalar()
        write(connection, survivors)
        found = connection.execute(
            sa.select(_FACTS.subject, _FACTS.seq, _FACTS.data, _FACTS.lost_after).where(_FACTS.run_id == run_id)
        ).all()
        rows = sorted(found, key=lambda row: (cut is not None and row.lost_after is None and row.seq > cut, row.seq))
        after = max((row.seq for row in rows), default=0)
        unmarked = sa.update(tables.facts).where(_FACTS.run_id == run_id, _FACTS.lost_after.is_(None))
        connection.execute(unmarked.values(lost_after=after if cut is None else cut))
    if not database.postgres:
        _sync(database)
    return [CopiedFact(row.subject, row.seq, row.data) for row in rows]


def end_restore(database: Database, run_id: str) -> None:
    """Unmark the facts of a run: the log has them."""
    with engine.errors("the copy of the log cannot be written"), database.write.begin() as connection:
        connection.execute(sa.update(tables.facts).where(_FACTS.run_id == run_id).values(lost_after=None))


def _sync(database: Database) -> None:
    """Sync a SQLite file, whose transactions survive a kill, but not each of them a power failure."""
    with engine.errors("the copy of the log cannot be written"):
        connection = database.write.raw_connection()
        try:
            connection.cursor().execute("PRAGMA wal_checkpoint(FULL)")
        finally:
            connection.close()
