"""Timers of triggers and backfills: scheduled messages of the broker (NATS ADR-51)."""

from __future__ import annotations

from typing import Literal

import pydantic

from penstock_adapters.nats.bus import Bus
from penstock_contracts import subjects
from penstock_core.deployments.decisions import EventDecided
from penstock_core.deployments.windows import WindowState, key_digest


class TriggerTimer(pydantic.BaseModel):
    """A timer of a trigger: of a window of a key, or of a run that starts later. Or that of a backfill.

    `key` is that of the window; `digest` identifies the event of the run, or the backfill.
    """

    model_config = pydantic.ConfigDict(frozen=True)

    kind: Literal["window", "start", "backfill"]
    project: str
    deployment: str
    trigger: str
    key: str = ""
    digest: str = ""
    at: float


class Timers:
    """Sets timers. Each subject has one timer; setting it again replaces it."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def set_window(self, state: WindowState, at: float) -> None:
        """Have the windows of a key looked at, at a Unix time in seconds."""
        timer = TriggerTimer(
            kind="window",
            project=state.project,
            deployment=state.deployment,
            trigger=state.trigger,
            key=state.key,
            at=at,
        )
        await self._set(timer, key_digest(state.key))

    async def set_start(self, decision: EventDecided, at: float) -> None:
        """Have a scheduled run started, at a Unix time in seconds."""
        timer = TriggerTimer(
            kind="start",
            project=decision.project,
            deployment=decision.deployment,
            trigger=decision.trigger,
            digest=decision.event.digest,
            at=at,
        )
        await self._set(timer, f"start-{decision.event.digest}")

    async def set_backfill(self, project: str, deployment: str, backfill: str, at: float) -> None:
        """Have a backfill checked, at a Unix time in seconds."""
        timer = TriggerTimer(
            kind="backfill", project=project, deployment=deployment, trigger="backfill", digest=backfill, at=at
        )
        await self._set(timer, backfill)

    async def _set(self, timer: TriggerTimer, token: str) -> None:
        place = (timer.project, timer.deployment, timer.trigger, token)
        headers = {
            # A timer must not fire early by the rounding to milliseconds.
            "Nats-Schedule": f"@at {subjects.rfc3339(int(timer.at * 1000) + 1)}",
            "Nats-Schedule-Target": subjects.trigger_due(*place),
            "Nats-Rollup": "sub",
        }
        await self._bus.publish(subjects.trigger_timer(*place), timer.model_dump_json().encode(), headers)
