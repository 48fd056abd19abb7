"""Timers of triggers, runs and backfills: scheduled messages of the broker (NATS ADR-51)."""

from __future__ import annotations

import contextlib
from typing import Literal

import pydantic

from penstock_adapters import cron_expressions
from penstock_adapters.cron_expressions import ScheduleError
from penstock_adapters.nats.bus import Bus
from penstock_contracts import subjects
from penstock_core.deployments import late
from penstock_core.deployments.decisions import EventDecided
from penstock_core.deployments.definition import Definition
from penstock_core.deployments.windows import WindowState, key_digest
from penstock_core.facts import RunRequested

_MANUAL = "manual"
"""In the place of the trigger of a run that a principal requested."""


class TriggerTimer(pydantic.BaseModel):
    """A timer: of a window of a key, of a run that starts later, of a run that may be late, or of a backfill.

    Attributes:
        key: of the window.
        digest: of the event that the run starts for; or the backfill.
        run_id: the run that may be late.
        reason: why it is late.
        step: key of the step that is late; empty: the run.
        success: whether it is late unless it has succeeded; otherwise, unless it has finished.
    """

    model_config = pydantic.ConfigDict(frozen=True)

    kind: Literal["window", "start", "late", "backfill"]
    project: str
    deployment: str
    trigger: str
    key: str = ""
    digest: str = ""
    run_id: str = ""
    reason: str = ""
    success: bool = False
    step: str = ""
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

    async def set_late(self, run: RunRequested, definition: Definition, scheduled_at: float | None = None) -> None:
        """Have it checked whether a run is late, at the times that its deployment defines.

        Args:
            run: the run.
            definition: of its deployment.
            scheduled_at: the tick that it runs for, in Unix seconds; None if it is that of no cron trigger.
        """
        limits = definition.late
        if limits is None:
            return
        if limits.after:
            await self._set_late(run, run.requested_at + limits.after, late.after_reason(limits.after), success=False)
        for key, after in limits.steps.items():
            await self._set_late(run, run.requested_at + after, late.step_reason(key, after), success=False, step=key)
        if limits.by and scheduled_at is not None:
            # The gateway has checked the time zone; one that only this machine lacks must not hold up others' events.
            with contextlib.suppress(ScheduleError):
                at = cron_expressions.next_tick(late.cron(limits.by), limits.tz, scheduled_at)
                await self._set_late(run, at, late.by_reason(limits.by, limits.tz), success=True)

    async def _set_late(self, run: RunRequested, at: float, reason: str, *, success: bool, step: str = "") -> None:
        timer = TriggerTimer(
            kind="late",
            project=run.project,
            deployment=run.trigger["deployment"],
            trigger=run.trigger.get("trigger", _MANUAL),
            run_id=run.run_id,
            reason=reason,
            success=success,
            step=step,
            at=at,
        )
        what = f"step-{key_digest(step)}" if step else "by" if success else "after"
        await self._set(timer, f"late-{what}-{run.run_id}")

    async def _set(self, timer: TriggerTimer, token: str) -> None:
        place = (timer.project, timer.deployment, timer.trigger, token)
        headers = {
            # A timer must not fire early by the rounding to milliseconds.
            "Nats-Schedule": f"@at {subjects.rfc3339(int(timer.at * 1000) + 1)}",
            "Nats-Schedule-Target": subjects.trigger_due(*place),
            "Nats-Rollup": "sub",
        }
        await self._bus.publish(subjects.trigger_timer(*place), timer.model_dump_json().encode(), headers)
