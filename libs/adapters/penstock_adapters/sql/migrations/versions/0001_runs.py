"""Runs, their attempts, what is searched for, artifacts and their uses."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the first tables."""
    op.create_table(
        "checkpoints",
        _text("stream", key=True),
        sa.Column("last_seq", sa.BigInteger, nullable=False),
        _text("log", null=False),
    )
    _runs()
    _attempts()
    _named("labels", _text("value", null=False))
    _named("params", sa.Column("number", sa.Double), _text("value", null=False))
    _named(
        "metrics",
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("value", sa.Double, nullable=False),
    )
    op.create_index("labels_by_value", "labels", ["name", "value", "run_id"])
    op.create_index("params_by_number", "params", ["name", "number", "run_id"])
    op.create_index("params_by_value", "params", ["name", "value", "run_id"])
    op.create_index("metrics_by_value", "metrics", ["name", "value", "run_id"])
    _lineage()


def _runs() -> None:
    op.create_table(
        "runs",
        _text("run_id", key=True),
        _text("project", null=False),
        _text("pipeline", null=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        _text("state", null=False),
        sa.Column("requested_at", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double),
        sa.Column("finished_at", sa.Double),
        sa.Column("duration", sa.Double),
        _text("deployment"),
        _text("trigger_type", null=False),
        _text("trigger", null=False),
        _text("labels", null=False),
        sa.Column("priority", sa.BigInteger, nullable=False),
        _text("error"),
        _text("inputs", null=False),
        _text("outputs"),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("last_seq", sa.BigInteger, nullable=False),
    )
    by_time = ["requested_at", "run_id"]
    op.create_index("runs_by_time", "runs", ["project", *by_time])
    op.create_index("runs_by_end", "runs", ["project", "finished_at", "run_id"])
    op.create_index("runs_by_duration", "runs", ["project", "duration", "run_id"])
    op.create_index("runs_by_pipeline", "runs", ["project", "pipeline", *by_time])
    op.create_index("runs_by_pipeline_and_state", "runs", ["project", "pipeline", "state", *by_time])
    op.create_index("runs_by_state", "runs", ["project", "state", *by_time])
    op.create_index("runs_by_trigger", "runs", ["project", "trigger_type", *by_time])
    op.create_index("runs_by_deployment", "runs", ["project", "deployment", *by_time])
    op.create_index("runs_by_last_fact", "runs", ["last_seq"])


def _attempts() -> None:
    op.create_table(
        "attempts",
        *_attempt(),
        _text("state", null=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        _text("pool"),
        sa.Column("requested_at", sa.Double),
        sa.Column("started_at", sa.Double),
        sa.Column("finished_at", sa.Double),
        _text("executor"),
        _text("host"),
        _text("error_type"),
        _text("reason"),
        _text("inputs"),
        _text("outputs"),
        sa.Column("items", sa.BigInteger),
        _text("from_run"),
        sqlite_with_rowid=False,
    )


def _lineage() -> None:
    op.create_table(
        "artifacts",
        _text("sha256", key=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        _text("media_type", null=False),
        _text("format", null=False),
        _text("python_type", null=False),
        _text("filename", null=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "uses",
        *_attempt(),
        _text("direction", key=True),
        _text("name", key=True),
        _text("sha256", key=True),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("uses_by_artifact", "uses", ["sha256", "direction", "seq"])


def _named(table: str, *columns: sa.Column[object]) -> None:
    op.create_table(
        table,
        _text("run_id", key=True),
        _text("name", key=True),
        _text("key", key=True),
        *columns,
        sqlite_with_rowid=False,
    )


def _attempt() -> list[sa.Column[object]]:
    number: sa.Column[object] = sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False)
    return [_text("run_id", key=True), _text("key", key=True), number]


def _text(name: str, *, key: bool = False, null: bool = True) -> sa.Column[object]:
    return sa.Column(name, _TEXT, primary_key=key, nullable=null and not key)
