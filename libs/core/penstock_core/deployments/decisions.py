"""Decisions of deployments on events, as facts in the stream `DECISIONS`.

A decision is appended once per deployment, trigger and event, before the run is requested. A redelivered event finds
it and follows it, also if the deployment has changed since. "Filtered" and "paused" are not stored: they are computed
again from the event and the definition that was in force when it arrived.
"""

from __future__ import annotations

import enum
from typing import ClassVar

from penstock_core import ids
from penstock_core.deployments.events import Event
from penstock_core.frozen import frozen


class Outcome(enum.StrEnum):
    """The decision of a trigger on an event."""

    STARTED = "started"
    """It started a run."""
    SCHEDULED = "scheduled"
    """A run starts at a later time, as the trigger's `not_before` says."""
    COLLECTED = "collected"
    """It is part of a window, whose run may have started already."""
    THROTTLED = "throttled"
    """An earlier event started a run, and this one arrived too soon after it."""
    BUILDING = "building"
    """It requested the build of a version."""
    REJECTED = "rejected"
    """An expression failed, or the inputs do not fit the pipeline."""
    LIMITED = "limited"
    """It started a run, which was skipped because too many runs were active. Not stored: the run says so."""
    FILTERED = "filtered"
    """The filter is false. Not stored."""
    PAUSED = "paused"
    """The deployment was paused. Not stored."""


@frozen(kw_only=True)
class EventRef:
    """An event in the stream: enough to read it again and to show it in a list."""

    digest: str
    sequence: int
    type: str
    source: str
    id: str
    received_at: float


def event_ref(event: Event) -> EventRef:
    """Return the reference to an event."""
    return EventRef(
        digest=event.digest,
        sequence=event.sequence,
        type=event.type,
        source=event.source,
        id=event.id,
        received_at=event.received_at,
    )


@frozen(kw_only=True)
class EventDecided:
    """A trigger decided on an event.

    Attributes:
        revision: the revision of the deployment that was in force.
        run_id: the run that it started or will start, or that an earlier event of its window started.
        key, window: the window that it is part of; windows of a key are numbered from 1.
        start_at: when the run starts, in Unix seconds, if it is scheduled.
        error: why it was rejected.
    """

    ce_type: ClassVar[str] = "penstock.trigger.decided.v1"
    append_once: ClassVar[bool] = True

    project: str
    deployment: str
    trigger: str
    revision: int
    event: EventRef
    outcome: Outcome
    run_id: str = ""
    key: str = ""
    window: int = 0
    start_at: float | None = None
    error: str = ""
    at: float = 0.0

    def __post_init__(self) -> None:
        ids.check_name(self.project, "project")
        ids.check_name(self.deployment, "deployment")
        ids.check_name(self.trigger, "trigger")

    @property
    def tail(self) -> str:
        """End of the subject, and the fact's identity."""
        return f"{self.project}.{self.deployment}.{self.event.digest}.{self.trigger}"


def run_id(project: str, pipeline: str, deployment: str, trigger: str, identity: str) -> str:
    """Return the id of the run for an event, or for a window: the same one, however often it is requested.

    `identity` is the digest of the event, or `window_identity`.
    """
    return ids.run_id_from_key(project, pipeline, f"\0trigger:{deployment}:{trigger}:{identity}")
