"""Writes batches of a stream into the tables: rows and the checkpoint of the stream in one transaction.

Any number of processes may project the same stream into one database. Each transaction first locks the stream's
checkpoint; facts that another one has written meanwhile are skipped, so that each fact counts once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import sqlalchemy as sa

from penstock_adapters.sql import engine, fact_copy, projection, series, statements, tables
from penstock_adapters.sql.changes import Changes
from penstock_adapters.sql.engine import Database
from penstock_adapters.sql.errors import SequenceGapError, UnwritableFactError
from penstock_adapters.sql.fact_copy import CopiedFact
from penstock_core.ports import Recorded

Read = Callable[[int], Sequence[Recorded]]
"""Gives the facts of a batch above a sequence number."""

ReadParts = Callable[[int], Sequence[series.PointBatch]]
"""Gives the parts of series of a batch above a sequence number."""

_CHECKPOINTS = tables.checkpoints.c


def begin(database: Database, stream: str, log: str, log_last: int) -> int:
    """Return the sequence number after which a stream must be read.

    Args:
        database: the database.
        stream: the stream's name.
        log: identifies this stream among others of its name, such as its time of creation.
        log_last: its last sequence number.

    Rows are never removed here: of facts that the log has lost they are the better copy, and those of a replaced log
    are all that is left of it. The lost facts are marked in the copy of the log, and the log is read from its start,
    because its new messages have the sequence numbers of lost ones.

    There are two streams: RUNS, and METRICS, which has the series.
    """
    with engine.errors("the read model cannot be read"), database.write.begin() as connection:
        known = statements.insert(connection, tables.checkpoints).on_conflict_do_nothing()
        connection.execute(known, [{"stream": stream, "last_seq": 0, "log": log}])
        last, of = connection.execute(_locked(stream)).one()
        start = 0 if of != log or last > log_last else last
        if start != last and stream != series.STREAM:
            fact_copy.mark_lost(connection, log_last)
        if (start, log) != (last, of):
            _advance(connection, stream, start, log)
        return start


def apply(database: Database, stream: str, after: int, upto: int, read: Read, copied: Sequence[CopiedFact] = ()) -> int:
    """Write the facts of a stream above `after` and up to `upto`; returns up to which sequence the tables have it.

    `copied` are the messages of the batch for the copy of the log.

    Raises:
        SequenceGapError: the tables lack facts up to `after`.
        UnwritableFactError: a fact of the batch cannot be written.
        UnavailableError, DatabaseError: nothing can be written.
    """

    def write(connection: sa.Connection, last: int) -> None:
        statements.write(connection, _projected(read(last)))
        fact_copy.write(connection, [fact for fact in copied if fact.seq > last])

    return _apply(database, stream, after, upto, write)


def measure(database: Database, stream: str, after: int, upto: int, read: ReadParts) -> int:
    """Write parts of series as `apply` writes facts."""

    def write(connection: sa.Connection, last: int) -> None:
        statements.upsert(connection, tables.series, series.rows(read(last)))

    return _apply(database, stream, after, upto, write)


def _apply(database: Database, stream: str, after: int, upto: int, write: Callable[[sa.Connection, int], None]) -> int:
    with engine.errors("the read model cannot be written"), database.write.begin() as connection:
        last: int = connection.execute(_locked(stream)).one().last_seq
        if last < after:
            raise SequenceGapError(last)
        if last >= upto:
            return last
        write(connection, last)
        _advance(connection, stream, upto)
        return upto


def store(database: Database, facts: Sequence[Recorded]) -> None:
    """Write facts from another source than the log, such as an archive."""
    with engine.errors("the read model cannot be written"), database.write.begin() as connection:
        statements.write(connection, _projected(facts))


def clear(database: Database, stream: str) -> None:
    """Delete everything from a stream, so that it is projected again."""
    of_stream = (tables.series,) if stream == series.STREAM else (*tables.OF_RUNS, tables.artifacts)
    with engine.errors("the read model cannot be cleared"), database.write.begin() as connection:
        connection.execute(_locked(stream))
        for table in of_stream:
            connection.execute(sa.text(f"TRUNCATE {table.name}") if database.postgres else sa.delete(table))
        _advance(connection, stream, 0)


def _projected(facts: Sequence[Recorded]) -> Changes:
    try:
        return projection.project(facts)
    except Exception as error:  # whatever a fact contains, it must not block later ones
        raise UnwritableFactError(f"fact not projected: {error!r}") from error


def _locked(stream: str) -> sa.Select[int, str]:
    """The checkpoint, locked until the transaction ends. SQLite ignores FOR UPDATE: it has one writer at a time."""
    columns = sa.select(_CHECKPOINTS.last_seq, _CHECKPOINTS.log)
    return columns.where(_CHECKPOINTS.stream == stream).with_for_update()


def _advance(connection: sa.Connection, stream: str, last: int, log: str | None = None) -> None:
    values = {"last_seq": last} | ({"log": log} if log is not None else {})
    connection.execute(sa.update(tables.checkpoints).where(_CHECKPOINTS.stream == stream).values(values))


def reread(database: Database, stream: str) -> None:
    """Have a stream read from its beginning, without deleting anything."""
    with engine.errors("the read model cannot be written"), database.write.begin() as connection:
        connection.execute(_locked(stream))
        _advance(connection, stream, 0)
