"""Series of measurements."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0001"
branch_labels = None
depends_on = None

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the table of series."""
    op.create_table(
        "series",
        sa.Column("run_id", _TEXT, primary_key=True),
        sa.Column("name", _TEXT, primary_key=True),
        sa.Column("key", _TEXT, primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("first", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("low", sa.Double),
        sa.Column("high", sa.Double),
        sa.Column("last", sa.Double),
        sa.Column("last_step", sa.BigInteger),
        sa.Column("last_at", sa.Double, nullable=False),
        sa.Column("points", sa.LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("series_by_place", "series", ["seq"])
