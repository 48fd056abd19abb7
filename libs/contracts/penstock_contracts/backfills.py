"""Partitions of deployments, and backfills, over HTTP."""

from __future__ import annotations

import enum
from typing import Any, Literal

from pydantic import BaseModel, Field

from penstock_contracts.bodies import RequestBody
from penstock_core.deployments.backfill_facts import ACTIVE_LIMIT, REASON_LIMIT
from penstock_core.deployments.backfills import Status

KEYS_LIMIT = 1_000
"""Most keys in one request."""


class PartitionState(enum.StrEnum):
    """The state of a partition: that of its latest run."""

    MISSING = "missing"
    """No run computed it."""
    RUNNING = "running"
    """Its latest run is queued or running."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """Its latest run failed, was cancelled or skipped."""


class PartitionView(BaseModel):
    """A partition of a deployment."""

    key: str
    state: PartitionState
    start: float | None = Field(default=None, description="of its interval, in Unix seconds")
    end: float | None = Field(default=None, description="of its interval, in Unix seconds")
    run_id: str | None = Field(default=None, description="its latest run")
    runs: int = Field(default=0, description="the number of its runs")
    finished_at: float | None = Field(default=None, description="when its latest run finished, in Unix seconds")


class PartitionList(BaseModel):
    """Partitions of a deployment, oldest first. `next` is where the next page starts; null at the end."""

    by: str
    tz: str = ""
    total: int
    counts: dict[PartitionState, int]
    partitions: list[PartitionView]
    lag: int = Field(default=0, description="facts of runs that the states lack, because the read model is behind")
    next: int | None = None


class PartitionKeys(RequestBody):
    """Add dynamic partitions."""

    keys: list[str] = Field(min_length=1, max_length=KEYS_LIMIT)


class AddedPartitions(BaseModel):
    """The keys that are new."""

    added: list[str]


class BackfillBody(RequestBody):
    """Start a backfill of partitions, or of the ticks of a cron trigger."""

    deployment: str
    since: str = Field(
        default="",
        max_length=100,
        alias="from",
        description="the first partition: its key, or a date or time at or before its start; of ticks: a date or time",
    )
    until: str = Field(
        default="",
        max_length=100,
        alias="to",
        description="the last partition, likewise: it must start at this time or before; of ticks: the latest time",
    )
    partitions: list[str] = Field(default_factory=list, max_length=KEYS_LIMIT, description="keys of partitions")
    all: bool = Field(default=False, description="all partitions that exist")
    only: list[Literal["missing", "failed"]] = Field(
        default_factory=list[Literal["missing", "failed"]],
        max_length=2,
        description="of these, or of all, only those in these states",
    )
    trigger: str = Field(default="", max_length=100, description="the cron trigger, if the deployment has several")
    inputs: dict[str, Any] = Field(
        default_factory=dict[str, Any], description="inputs of its runs by parameter, which override the deployment's"
    )
    max_active: int = Field(default=4, ge=1, le=ACTIVE_LIMIT, description="runs that are active at the same time")
    order: Literal["oldest", "newest"] = Field(default="oldest", description="which run first")
    dry_run: bool = Field(default=False, description="list what would run, and start nothing")


class BackfillChange(RequestBody):
    """Pause, resume or retry a backfill."""

    reason: str = Field(default="", max_length=REASON_LIMIT)


class BackfillCancel(BackfillChange):
    """Cancel a backfill."""

    runs: bool = Field(default=False, description="cancel its active runs, too")


class BackfillView(BaseModel):
    """A backfill as it is now. `id` is empty in a dry run."""

    id: str
    deployment: str
    revision: int
    pipeline: str
    version: int
    trigger: str = Field(default="", description="the cron trigger whose ticks are its items; empty: partitions")
    status: Status
    total: int
    finished: int = Field(default=0, description="items whose runs ended")
    counts: dict[str, int] = Field(
        default_factory=dict[str, int],
        description="items by state: pending, active, succeeded, failed, cancelled, skipped, rejected, deleted",
    )
    max_active: int
    order: Literal["oldest", "newest"]
    by: str = ""
    at: float = Field(default=0.0, description="when it was started, in Unix seconds")
    finished_at: float | None = Field(default=None, description="when it finished, in Unix seconds")
    errors: dict[str, str] = Field(
        default_factory=dict[str, str], description="errors of items without a run, by key; the latest 20"
    )
    keys: list[str] = Field(default_factory=list[str], description="what would run, in order, at most 1000 keys")
    created: bool = Field(default=False, description="whether this request started it")


class BackfillList(BaseModel):
    """Backfills, newest first."""

    backfills: list[BackfillView]


class BackfillItem(BaseModel):
    """An item of a backfill. `state` is `pending`, `active`, or how its latest run ended."""

    key: str
    state: str
    run_id: str | None = None
    round: int = Field(default=0, description="how many times it was retried")


class BackfillItems(BaseModel):
    """Items of a backfill, oldest first. `next` is where the next page starts; null at the end."""

    items: list[BackfillItem]
    next: int | None = None
