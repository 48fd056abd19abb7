"""The read model as one object, opened on a database. All calls block: use threads.

Importing this module imports SQLAlchemy, which takes a while: use a thread for that, too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from pathlib import Path

from penstock_adapters.sql import engine, fact_copy, lineage, migrate, partitions, run_details, search, series, writer
from penstock_adapters.sql.engine import Database
from penstock_adapters.sql.errors import DatabaseDamagedError
from penstock_adapters.sql.fact_copy import CopiedFact, DamagedRun
from penstock_adapters.sql.partitions import LatestRuns
from penstock_adapters.sql.search import Page, Row
from penstock_adapters.sql.series import PointRange, Series
from penstock_core.artifacts.reach import Reached
from penstock_core.ports import Recorded
from penstock_core.queries.search import RunQuery


class ReadModelStore:
    """The runs in a migrated database. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def name(self) -> str:
        """Name of the database in messages."""
        return self._database.name

    def begin(self, stream: str, log: str, log_last: int) -> int:
        """See `writer.begin`."""
        return writer.begin(self._database, stream, log, log_last)

    def apply(self, stream: str, after: int, upto: int, read: writer.Read, copied: Sequence[CopiedFact] = ()) -> int:
        """See `writer.apply`."""
        return writer.apply(self._database, stream, after, upto, read, copied)

    def reread(self, stream: str) -> None:
        """See `writer.reread`."""
        writer.reread(self._database, stream)

    def copied_between(self, after: int, upto: int) -> list[tuple[int, str]]:
        """See `fact_copy.between`."""
        return fact_copy.between(self._database, after, upto)

    def mark_lost(self, lost: Collection[str], after: int) -> None:
        """See `fact_copy.mark`."""
        fact_copy.mark(self._database, lost, after)

    def damaged_runs(self) -> list[DamagedRun]:
        """See `fact_copy.damaged_runs`."""
        return fact_copy.damaged_runs(self._database)

    def unfinished_runs(self) -> list[str]:
        """See `fact_copy.unfinished_runs`."""
        return fact_copy.unfinished_runs(self._database)

    def begin_restore(self, run_id: str, survivors: Sequence[CopiedFact]) -> list[CopiedFact]:
        """See `fact_copy.begin_restore`."""
        return fact_copy.begin_restore(self._database, run_id, survivors)

    def end_restore(self, run_id: str) -> None:
        """See `fact_copy.end_restore`."""
        fact_copy.end_restore(self._database, run_id)

    def measure(self, stream: str, after: int, upto: int, read: writer.ReadParts) -> int:
        """See `writer.measure`."""
        return writer.measure(self._database, stream, after, upto, read)

    def summaries(
        self, run_id: str, name: str | None, key: str | None, attempt: int | None, limit: int
    ) -> list[Series]:
        """See `series.summaries`."""
        return series.summaries(self._database, run_id, name, key, attempt, limit)

    def points(self, run_id: str, one: Series, after: tuple[int, int] | None, limit: int) -> PointRange:
        """See `series.page`."""
        return series.page(self._database, run_id, one, after, limit)

    def thinned(self, run_id: str, one: Series, most: int) -> PointRange:
        """See `series.thinned`."""
        return series.thinned(self._database, run_id, one, most)

    def store(self, facts: Sequence[Recorded]) -> None:
        """See `writer.store`."""
        writer.store(self._database, facts)

    def clear(self, stream: str) -> None:
        """See `writer.clear`."""
        writer.clear(self._database, stream)

    def page(self, query: RunQuery) -> Page:
        """See `listing.page`."""
        return search.page(self._database, query)

    def active_runs(self) -> search.ActiveRuns:
        """See `search.active_runs`."""
        return search.active_runs(self._database)

    def run(self, run_id: str) -> Row | None:
        """See `details.run`."""
        return run_details.run(self._database, run_id)

    def latest_of_partitions(self, project: str, deployment: str, keys: Sequence[str] | None) -> LatestRuns:
        """See `partitions.latest`."""
        return partitions.latest(self._database, project, deployment, keys)

    def lineage(self, project: str, sha256: str) -> Row | None:
        """See `lineage.lineage`."""
        return lineage.lineage(self._database, project, sha256)

    def reached(self, project: str, sha256: str) -> Reached:
        """See `lineage.reached`."""
        return lineage.reached(self._database, project, sha256)

    def close(self) -> None:
        """Close all connections."""
        self._database.close()


def open_read_model(where: str | Path) -> ReadModelStore:
    """Open the database at a URL, or the SQLite file at a path, and migrate its tables.

    A damaged file is renamed and a new one created, which is then filled from the log.

    Raises:
        DatabaseError: the URL is wrong, or the database was made by a newer version.
        UnavailableError: the database does not answer.
    """
    database = engine.connect(where)
    try:
        migrate.migrate(database)
    except DatabaseDamagedError:
        database.close()
        if not isinstance(where, Path):
            raise
        quarantine(where)
        database = engine.connect(where)
        migrate.migrate(database)
    except BaseException:
        database.close()
        raise
    return ReadModelStore(database)


def quarantine(path: Path) -> None:
    """Rename a damaged SQLite file, replacing an earlier damaged one."""
    for ending in ("-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        path.replace(path.with_name(path.name + ".damaged"))
