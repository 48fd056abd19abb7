"""The ticks of a schedule: cron expressions by cronsim, in the time zone of the schedule, with daylight saving time.

As in Debian's cron, a tick in the hour that is skipped in spring fires right after it, and one in the hour that is
repeated in autumn fires once.
"""

from __future__ import annotations

import hashlib
import math
import zoneinfo
from datetime import datetime
from typing import ClassVar

from cronsim import CronSim, CronSimError

from penstock_core.deployments.definition import CronTrigger
from penstock_core.errors import PenstockError

NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class ScheduleError(PenstockError):
    """A cron expression or a time zone is invalid."""

    user_fault: ClassVar[bool] = True


_EPSILON = 1e-3


def trigger_tick(trigger: CronTrigger, after: float) -> float | None:
    """The first tick of a trigger after a Unix time, without its jitter; None after its end.

    Raises:
        ScheduleError: as `next_tick`.
    """
    after = after if trigger.start is None else max(after, trigger.start - _EPSILON)
    if trigger.every:
        base = trigger.start or 0.0
        found = base + (math.floor((after - base) / trigger.every) + 1) * trigger.every
    else:
        found = next_tick(trigger.cron, trigger.tz, after)
    return None if trigger.end is not None and found > trigger.end else found


def delay(trigger: CronTrigger, deployment: str, tick: float) -> float:
    """The jitter of a tick in seconds: the same in all replicas, different for other deployments and ticks."""
    if not trigger.jitter:
        return 0.0
    digest = hashlib.sha256(f"{deployment}/{trigger.name}/{tick:.3f}".encode()).digest()
    return trigger.jitter * int.from_bytes(digest[:6], "big") / 2**48


def check(trigger: CronTrigger) -> list[tuple[str, str]]:
    """What is wrong in a trigger: the field, and the problem."""
    problems: list[tuple[str, str]] = []
    for field, cron, tz in (("cron", trigger.cron or "* * * * *", "UTC"), ("tz", "* * * * *", trigger.tz)):
        try:
            next_tick(cron, tz, 0.0)
        except ScheduleError as error:
            problems.append((field, str(error)))
    return problems


def next_tick(cron: str, tz: str, after: float) -> float:
    """The first tick after a Unix time, as a Unix time in seconds.

    Raises:
        ScheduleError: the expression is invalid or never fires, or the time zone is unknown.
    """
    ticks = _ticks(cron, tz, after, reverse=False)
    return _first(cron, ticks)


def last_tick(cron: str, tz: str, upto: float) -> float:
    """The last tick at or before a Unix time, as a Unix time in seconds.

    Raises:
        ScheduleError: as `next_tick`.
    """
    found = _first(cron, _ticks(cron, tz, math.floor(upto) + 1.0, reverse=True))
    # Backwards over a clock change, cronsim may miss a tick that it finds forwards.
    while (later := next_tick(cron, tz, found)) <= upto:
        found = later
    return found


def _ticks(cron: str, tz: str, start: float, *, reverse: bool) -> CronSim:
    try:
        zone = zoneinfo.ZoneInfo(tz)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ScheduleError(f"{tz!r} is not a time zone; use one such as 'Europe/Paris' or 'UTC'") from error
    fields = NICKNAMES.get(cron.strip().lower(), cron)
    if fields.startswith("@"):
        raise ScheduleError(f"{cron!r} is unknown; use five fields, or one of {', '.join(NICKNAMES)}")
    try:
        return CronSim(fields, datetime.fromtimestamp(start, zone), reverse=reverse)
    except CronSimError as error:
        raise ScheduleError(f"{cron!r} is not a cron expression: {error}") from error


def _first(cron: str, ticks: CronSim) -> float:
    try:
        return next(ticks).timestamp()
    except StopIteration as error:
        raise ScheduleError(f"{cron!r} never fires") from error
