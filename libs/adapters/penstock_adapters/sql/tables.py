"""The tables of the read model. They are created by the migrations; a test compares both.

    checkpoints   how far each stream of the log is projected, in the same transaction as the rows
    runs          one row a run: what lists show and filter
    attempts      one row a try of a step; number 0 is the step itself: skipped, expanded into items, reused
    labels        labels of runs and tags that steps set
    params        inputs of runs (key '') and parameters that steps logged
    metrics       the last value of each metric of each step
    artifacts     artifacts that facts refer to
    uses          which attempt read (`in`), made (`out`, `logged`) or reused (`reused`) which artifact
    facts         the facts of runs that are not archived, as the log has them: with them a damaged log is repaired

Children are clustered by run, so that a run's page is a few ranges. Each filter has an index that begins with what it
compares and ends with what lists are sorted by, so that no page needs more than its own rows and a bounded search.
"""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
"""Text that is compared byte by byte everywhere."""

checkpoints = sa.Table(
    "checkpoints",
    metadata,
    sa.Column("stream", Text, primary_key=True),
    sa.Column("last_seq", sa.BigInteger, nullable=False),
    sa.Column("log", Text, nullable=False),
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("run_id", Text, primary_key=True),
    sa.Column("project", Text, nullable=False),
    sa.Column("pipeline", Text, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("state", Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("started_at", sa.Double),
    sa.Column("finished_at", sa.Double),
    sa.Column("duration", sa.Double),
    sa.Column("deployment", Text),
    sa.Column("trigger_type", Text, nullable=False),
    sa.Column("trigger", Text, nullable=False),
    sa.Column("labels", Text, nullable=False),
    sa.Column("priority", sa.BigInteger, nullable=False),
    sa.Column("error", Text),
    sa.Column("inputs", Text, nullable=False),
    sa.Column("outputs", Text),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("last_seq", sa.BigInteger, nullable=False),
    sa.Column("requested_by", Text, nullable=False, server_default=""),
    sa.Column("partition", Text),
    sa.Index("runs_by_time", "project", "created_at", "run_id"),
    sa.Index("runs_by_end", "project", "finished_at", "run_id"),
    sa.Index("runs_by_duration", "project", "duration", "run_id"),
    sa.Index("runs_by_pipeline", "project", "pipeline", "created_at", "run_id"),
    sa.Index("runs_by_pipeline_and_state", "project", "pipeline", "state", "created_at", "run_id"),
    sa.Index("runs_by_state", "project", "state", "created_at", "run_id"),
    sa.Index("runs_by_trigger", "project", "trigger_type", "created_at", "run_id"),
    sa.Index("runs_by_principal", "project", "requested_by", "created_at", "run_id"),
    sa.Index("runs_by_deployment", "project", "deployment", "created_at", "run_id"),
    sa.Index("runs_by_partition", "project", "deployment", "partition", "created_at", "run_id"),
    sa.Index("runs_by_last_fact", "last_seq"),
)

attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("run_id", Text, primary_key=True),
    sa.Column("key", Text, primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("state", Text, nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("pool", Text),
    sa.Column("requested_at", sa.Double),
    sa.Column("started_at", sa.Double),
    sa.Column("finished_at", sa.Double),
    sa.Column("executor", Text),
    sa.Column("host", Text),
    sa.Column("error_type", Text),
    sa.Column("reason", Text),
    sa.Column("inputs", Text),
    sa.Column("outputs", Text),
    sa.Column("items", sa.BigInteger),
    sa.Column("from_run", Text),
    sqlite_with_rowid=False,
)

labels = sa.Table(
    "labels",
    metadata,
    sa.Column("run_id", Text, primary_key=True),
    sa.Column("name", Text, primary_key=True),
    sa.Column("key", Text, primary_key=True),
    sa.Column("value", Text, nullable=False),
    sa.Index("labels_by_value", "name", "value", "run_id"),
    sqlite_with_rowid=False,
)

params = sa.Table(
    "params",
    metadata,
    sa.Column("run_id", Text, primary_key=True),
    sa.Column("name", Text, primary_key=True),
    sa.Column("key", Text, primary_key=True),
    sa.Column("number", sa.Double),
    sa.Column("value", Text, nullable=False),
    sa.Index("params_by_number", "name", "number", "run_id"),
    sa.Index("params_by_value", "name", "value", "run_id"),
    sqlite_with_rowid=False,
)

metrics = sa.Table(
    "metrics",
    metadata,
    sa.Column("run_id", Text, primary_key=True),
    sa.Column("name", Text, primary_key=True),
    sa.Column("key", Text, primary_key=True),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("value", sa.Double, nullable=False),
    sa.Index("metrics_by_value", "name", "value", "run_id"),
    sqlite_with_rowid=False,
)

series = sa.Table(
    "series",
    metadata,
    sa.Column("run_id", Text, primary_key=True),
    sa.Column("name", Text, primary_key=True),
    sa.Column("key", Text, primary_key=True),
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
    sa.Index("series_by_place", "seq"),
    sqlite_with_rowid=False,
)
"""Parts of series, each a message of the stream METRICS: see `series`. NaN is null in the columns that are compared."""

artifacts = sa.Table(
    "artifacts",
    metadata,
    sa.Column("sha256", Text, primary_key=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("media_type", Text, nullable=False),
    sa.Column("format", Text, nullable=False),
    sa.Column("python_type", Text, nullable=False),
    sa.Column("filename", Text, nullable=False),
    sqlite_with_rowid=False,
)

uses = sa.Table(
    "uses",
    metadata,
    sa.Column("run_id", Text, primary_key=True),
    sa.Column("key", Text, primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("direction", Text, primary_key=True),
    sa.Column("name", Text, primary_key=True),
    sa.Column("sha256", Text, primary_key=True),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Index("uses_by_artifact", "sha256", "direction", "seq"),
    sqlite_with_rowid=False,
)

facts = sa.Table(
    "facts",
    metadata,
    sa.Column("subject", Text, primary_key=True),
    sa.Column("run_id", Text, nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
    sa.Column("lost_after", sa.BigInteger),
    sa.Index("facts_by_run", "run_id"),
    sa.Index("facts_by_seq", "seq"),
    sa.Index("lost_facts", "lost_after", sqlite_where=sa.text("lost_after IS NOT NULL")),
)
"""The copy of the log: see `fact_copy`. `lost_after` is set for facts of runs that the log has lost in part."""

OF_RUNS = (labels, params, metrics, uses, attempts, runs)
"""Tables whose rows belong to one run each."""
