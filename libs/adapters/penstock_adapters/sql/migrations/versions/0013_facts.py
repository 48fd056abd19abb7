"""A copy of the facts of runs, with which a damaged log is repaired."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the table, and read the log once more to fill it: writing the other rows again changes nothing."""
    op.create_table(
        "facts",
        sa.Column("subject", _TEXT, primary_key=True),
        sa.Column("run_id", _TEXT, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.Column("lost_after", sa.BigInteger),
    )
    op.create_index("facts_by_run", "facts", ["run_id"])
    op.create_index("facts_by_seq", "facts", ["seq"])
    op.create_index("lost_facts", "facts", ["lost_after"], sqlite_where=sa.text("lost_after IS NOT NULL"))
    op.execute("UPDATE checkpoints SET last_seq = 0 WHERE stream = 'RUNS'")
