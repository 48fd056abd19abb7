"""Opens the database of the read model: SQLite in a file, or PostgreSQL by URL.

SQLite has one writer, so writes use a separate engine with one connection whose transactions start with the write lock.
A read model can be rebuilt, so SQLite does not sync every commit: a power failure may lose the last ones, together with
the checkpoint, which is in the same file.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event, exc

from penstock_adapters.sql.errors import DatabaseDamagedError, DatabaseError, UnwritableFactError
from penstock_core.errors import UnavailableError

READERS = 4
"""Concurrent queries."""

_BUSY_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Database:
    """Engines for writing and for reading; with PostgreSQL they are one."""

    write: sa.Engine
    read: sa.Engine

    @property
    def postgres(self) -> bool:
        """Whether other processes may write, too."""
        return self.write.dialect.name == "postgresql"

    @property
    def name(self) -> str:
        """Name of the database in messages: without password."""
        return self.write.url.render_as_string(hide_password=True)

    def close(self) -> None:
        """Close all connections."""
        self.read.dispose()
        self.write.dispose()


def connect(url: str | Path) -> Database:
    """A database by URL (`postgresql://…`, `sqlite:///…`), or the SQLite file at a path. Connects when first used.

    Raises:
        DatabaseError: the URL is invalid.
    """
    if isinstance(url, Path):
        return _sqlite(sa.URL.create("sqlite", database=str(url)))
    try:
        made = sa.make_url(url)
    except exc.ArgumentError as error:
        raise _no_url() from error
    kind = made.drivername.partition("+")[0]
    if kind == "sqlite" and made.database:
        return _sqlite(made.set(drivername="sqlite"))
    if kind in ("postgresql", "postgres"):
        made = made.set(drivername="postgresql+psycopg")
        made = made.update_query_dict({"connect_timeout": "5"}) if "connect_timeout" not in made.query else made
        engine = sa.create_engine(made, pool_size=READERS + 1, max_overflow=2, pool_pre_ping=True, pool_timeout=10)
        return Database(engine, engine)
    raise _no_url()


def _no_url() -> DatabaseError:
    return DatabaseError(
        "PENSTOCK_DATABASE_URL is no address of a database that can hold the read model: "
        "use postgresql://user:password@host/name, or leave it empty for a file in the state folder"
    )


def _sqlite(url: sa.URL) -> Database:
    write = sa.create_engine(url, poolclass=sa.QueuePool, pool_size=1, max_overflow=0, connect_args=_SQLITE)
    read = sa.create_engine(url, poolclass=sa.QueuePool, pool_size=READERS, max_overflow=0, connect_args=_SQLITE)
    for engine, begin in ((write, "BEGIN IMMEDIATE"), (read, "BEGIN")):
        event.listen(engine, "connect", _configure)
        event.listen(engine, "begin", _beginner(begin))
    return Database(write, read)


_SQLITE = {"timeout": _BUSY_SECONDS, "check_same_thread": False}


def _configure(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # the driver begins no transactions of its own: see `_beginner`
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "cache_size=-16000", "temp_store=MEMORY"):
        connection.execute(f"PRAGMA {pragma}")


def _beginner(statement: str) -> Any:
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(statement)

    return begin


@contextlib.contextmanager
def errors(what: str) -> Generator[None]:
    """Translate the errors of the driver.

    Raises:
        UnwritableFactError: the data is invalid.
        DatabaseDamagedError: the file is damaged.
        DatabaseError: a final refusal, for example because a permission is missing.
        UnavailableError: it is unavailable, busy or stopping.
    """
    try:
        yield
    except (exc.DataError, exc.IntegrityError) as error:
        raise UnwritableFactError(f"{what}: {_first(error)}") from error
    except (exc.OperationalError, exc.InterfaceError, exc.TimeoutError) as error:
        raise UnavailableError(f"{what}: {_first(error)}") from error
    except (exc.DBAPIError, sqlite3.DatabaseError) as error:
        if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
            raise UnavailableError(f"{what}: {_first(error)}") from error
        kind = (
            DatabaseDamagedError if _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) else DatabaseError
        )
        raise kind(f"{what}: {_first(error)}") from error
    except (exc.StatementError, OverflowError, UnicodeError, ValueError) as error:
        raise UnwritableFactError(f"{what}: {_first(error)}") from error


def _code(error: BaseException) -> int:
    return getattr(getattr(error, "orig", None) or error, "sqlite_errorcode", 0) & 0xFF


def _first(error: BaseException) -> str:
    """The first line of the message of the driver."""
    cause = getattr(error, "orig", None) or error
    lines = str(cause).strip().splitlines()
    return (lines[0] if lines else type(cause).__name__)[:500]
