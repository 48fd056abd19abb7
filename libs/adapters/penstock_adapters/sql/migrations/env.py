"""What alembic runs first: it is given a connection and migrates in its transaction."""

from __future__ import annotations

from alembic import context

from penstock_adapters.sql.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=False)
context.run_migrations()
