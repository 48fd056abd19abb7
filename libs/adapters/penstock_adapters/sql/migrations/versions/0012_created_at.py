"""The time of a run's request is called `created_at`, as in the API."""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Rename the column; indexes follow in SQLite and PostgreSQL."""
    op.execute("ALTER TABLE runs RENAME COLUMN requested_at TO created_at")
