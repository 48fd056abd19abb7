"""The ticks of a schedule: cron expressions by cronsim, in the time zone of the schedule, with daylight saving time.

As in Debian's cron, a tick in the hour that is skipped in spring fires right after it, and one in the hour that is
repeated in autumn fires once.
"""

from __future__ import annotations

import math
import zoneinfo
from datetime import datetime
from typing import ClassVar

from cronsim import CronSim, CronSimError

from penstock_core.errors import PenstockError


class ScheduleError(PenstockError):
    """A cron expression or a time zone is invalid."""

    user_fault: ClassVar[bool] = True


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
    try:
        return CronSim(cron, datetime.fromtimestamp(start, zone), reverse=reverse)
    except CronSimError as error:
        raise ScheduleError(f"{cron!r} is not a cron expression: {error}") from error


def _first(cron: str, ticks: CronSim) -> float:
    try:
        return next(ticks).timestamp()
    except StopIteration as error:
        raise ScheduleError(f"{cron!r} never fires") from error
