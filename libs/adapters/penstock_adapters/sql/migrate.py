"""Creates or migrates the tables. One migrator at a time; alembic is imported only if the tables must change."""

from __future__ import annotations

import sqlalchemy as sa

from penstock_adapters.sql import engine, tables
from penstock_adapters.sql.engine import Database
from penstock_adapters.sql.errors import DatabaseError

HEAD = "0014"
"""The newest migration; a test compares it with the scripts."""

_LOCK = 0x70656E73746F636B
"""The number of PostgreSQL's advisory lock that a migrator holds (`penstock` in ASCII)."""


def migrate(database: Database) -> None:
    """Create the tables, or migrate them to the schema of this version.

    Raises:
        DatabaseError: a newer version of Penstock made them, or the user lacks the permission.
        UnavailableError: the database does not answer.
    """
    with engine.errors("the tables of the read model cannot be made"), database.write.begin() as connection:
        if database.postgres:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        found = _version(connection)
        if found is None:
            _make(connection)
        elif found > HEAD:
            raise DatabaseError(
                f"the database of the read model was created by a newer version of Penstock ({found}, this one knows "
                f"{HEAD}): install that version, or choose another database with PENSTOCK_DATABASE_URL"
            )
        elif found < HEAD:
            upgrade(connection)


def _make(connection: sa.Connection) -> None:
    """Create all tables in a new database; a test compares them with the result of the migrations."""
    tables.metadata.create_all(connection)
    connection.execute(sa.text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
    connection.execute(sa.text("INSERT INTO alembic_version VALUES (:head)"), {"head": HEAD})


def upgrade(connection: sa.Connection, revision: str = "head") -> None:
    """Run the migrations up to `revision` in the transaction of `connection`."""
    # Its import takes as long as that of SQLAlchemy, and it is needed once per version of the tables.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "penstock_adapters.sql:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def _version(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
