"""Settings of the scheduler service."""

from __future__ import annotations

from pydantic import Field

from penstock_servicekit.settings import ServiceSettings


class SchedulerSettings(ServiceSettings):
    """Settings of the scheduler."""

    scheduler_batch: int = Field(default=500, ge=1, le=10_000, description="facts prefetched for each shard")
    scheduler_limits_check: float = Field(
        default=30.0, ge=1, le=3600, description="seconds between comparisons of limits with the log"
    )
    scheduler_runs: int = Field(default=4_000, ge=1, description="runs whose folded state is kept in memory")
