"""Settings of the triggers service."""

from __future__ import annotations

from pydantic import Field

from penstock_servicekit.settings import ServiceSettings


class TriggersSettings(ServiceSettings):
    """Settings of the triggers service."""

    trigger_concurrency: int = Field(default=256, ge=1, le=5000, description="events handled at the same time")
