"""Settings of the cron service."""

from __future__ import annotations

from pydantic import Field

from penstock_servicekit.settings import ServiceSettings


class CronSettings(ServiceSettings):
    """Settings of the cron service."""

    cron_check: float = Field(default=60.0, gt=0, description="seconds between checks that all cron triggers are armed")
