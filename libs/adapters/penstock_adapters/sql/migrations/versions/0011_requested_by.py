"""Who requested a run."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Add the principal; runs from before have none."""
    op.add_column("runs", sa.Column("requested_by", _TEXT, nullable=False, server_default=""))
    op.create_index("runs_by_principal", "runs", ["project", "requested_by", "requested_at", "run_id"])
