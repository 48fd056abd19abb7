"""The event of a tick of a cron trigger."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from penstock_core.deployments.definition import CRON_TICK, event_subject
from penstock_core.deployments.events import Event
from penstock_core.errors import InputError

SOURCE = "penstock/cron"
"""Source of the events of ticks."""


def tick_event(project: str, deployment: str, trigger: str, at: float) -> Event:
    """Return the event of the tick at a Unix time; the same tick is the same event."""
    scheduled = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Event(
        project=project,
        type=CRON_TICK,
        source=SOURCE,
        id=f"{deployment}/{trigger}/{at:.3f}",
        time=scheduled,
        subject=event_subject(deployment, trigger),
        data={"deployment": deployment, "trigger": trigger, "scheduled_at": scheduled},
    )


def scheduled_at(event: Event) -> float:
    """Return the Unix time of the tick that an event is about.

    Raises:
        InputError: it has none; anyone may send an event of this type.
    """
    data: Any = event.data
    try:
        return datetime.fromisoformat(data["scheduled_at"]).timestamp()
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("the event has no time of a tick in data.scheduled_at") from error
