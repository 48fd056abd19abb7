"""Cron schedules: `Client.schedules`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from penstock.client import views
from penstock.client.http.transport import Transport


@dataclass(frozen=True, slots=True)
class Schedule:
    """A cron schedule of a pipeline.

    Attributes:
        cron: five or six fields, such as `0 3 * * *`, evaluated in time zone `tz`.
        version: a published version; None for the latest published one at each tick.
        inputs: JSON values by parameter name.
        paused: the schedule exists but starts no runs.
        owner: the principal that created or last changed it; set by the platform.
    """

    name: str
    pipeline: str
    cron: str
    version: int | None = None
    tz: str = "UTC"
    inputs: dict[str, Any] = field(default_factory=dict[str, Any])
    paused: bool = False
    project: str = "default"
    owner: str = ""


class Schedules:
    """`Client.schedules`: manage cron schedules."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, name: str) -> Schedule:
        """Return a schedule.

        Raises:
            NotFoundError: there is no schedule of this name.
        """
        return views.build(Schedule, self._transport.json("GET", f"/v1/schedules/{quote(name)}"))

    def apply(self, schedule: Schedule) -> Schedule:
        """Create a schedule, or update the one of the same name."""
        body = {name: getattr(schedule, name) for name in Schedule.__slots__}
        return views.build(Schedule, self._transport.json("PUT", f"/v1/schedules/{quote(schedule.name)}", body=body))

    def delete(self, name: str) -> None:
        """Delete a schedule.

        Raises:
            NotFoundError: there is no schedule of this name.
        """
        self._transport.json("DELETE", f"/v1/schedules/{quote(name)}")

    def list(self) -> list[Schedule]:
        """Return all schedules."""
        return [views.build(Schedule, row) for row in self._transport.json("GET", "/v1/schedules")["schedules"]]
