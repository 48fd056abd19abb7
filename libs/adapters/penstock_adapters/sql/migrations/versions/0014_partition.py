"""The partition of a run."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Add the key of the partition; runs from before have none."""
    op.add_column("runs", sa.Column("partition", _TEXT))
    op.create_index("runs_by_partition", "runs", ["project", "deployment", "partition", "created_at", "run_id"])
