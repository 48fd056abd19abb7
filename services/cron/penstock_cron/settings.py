"""What the cron service can be told."""

from __future__ import annotations

from penstock_servicekit.settings import ServiceSettings


class CronSettings(ServiceSettings):
    """Settings of the cron service."""
