"""When a run of a deployment is late. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from penstock_core.deployments.definition import CronTrigger, Definition, Problem
from penstock_core.durations import format_duration

AFTER_LIMIT = 30 * 86400
"""Longest time until a run is late, in seconds."""

_TIME = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]\Z")


def problems(definition: Definition) -> Iterator[Problem]:
    """What is wrong in when runs of a deployment are late, with its path."""
    late = definition.late
    if late is None:
        return
    if not 0 <= late.after <= AFTER_LIMIT:
        yield "late.after", "must be more than 0 seconds and at most 30 days"
    if not late.after and not late.by:
        yield "late", "give a duration (after), a time of day (by), or both"
    if late.by and not _TIME.match(late.by):
        yield "late.by", f"{late.by[:50]!r} is not a time of day; use one such as '07:00'"
    if late.by and not any(isinstance(trigger, CronTrigger) for trigger in definition.triggers):
        yield "late.by", "needs a cron trigger: it is the time of day by which the run of a tick must have succeeded"


def cron(by: str) -> str:
    """Return the cron expression of a time of day."""
    hour, minute = by.split(":")
    return f"{int(minute)} {int(hour)} * * *"


def after_reason(after: float) -> str:
    """Return why a run is late that has not finished in time."""
    return f"it has not finished {format_duration(after)} after its request"


def by_reason(by: str, tz: str) -> str:
    """Return why a run is late that has not succeeded by a time of day."""
    return f"it has not succeeded by {by} {tz}"
