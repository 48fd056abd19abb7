"""When a schedule ticks: cron expressions by cronsim, in the schedule's own time zone, daylight saving included.

As in Debian's cron, a tick that falls into the hour which is skipped in spring happens right after it, and one in the
hour that is repeated in autumn happens once.
"""

from __future__ import annotations

import math
import zoneinfo
from datetime import datetime

from cronsim import CronSim, CronSimError

from penstock_core.errors import PenstockError


class ScheduleError(PenstockError):
    """A cron expression or a time zone is wrong."""


def next_tick(cron: str, tz: str, after: float) -> float:
    """The first tick after a Unix time, as a Unix time in seconds.

    Raises:
        ScheduleError: the expression never fires or cannot be read, or the time zone is unknown.
    """
    ticks = _ticks(cron, tz, after, reverse=False)
    return _first(cron, ticks)


def last_tick(cron: str, tz: str, upto: float) -> float:
    """The last tick at or before a Unix time, as a Unix time in seconds.

    Raises:
        ScheduleError: as `next_tick`.
    """
    found = _first(cron, _ticks(cron, tz, math.floor(upto) + 1.0, reverse=True))
    # Going back over a change of the clock, cronsim may leave out a tick that going forward finds.
    while (later := next_tick(cron, tz, found)) <= upto:
        found = later
    return found


def _ticks(cron: str, tz: str, start: float, *, reverse: bool) -> CronSim:
    try:
        zone = zoneinfo.ZoneInfo(tz)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ScheduleError(f"{tz!r} is no time zone, such as 'Europe/Paris' or 'UTC'") from error
    try:
        return CronSim(cron, datetime.fromtimestamp(start, zone), reverse=reverse)
    except CronSimError as error:
        raise ScheduleError(f"{cron!r} is no cron expression: {error}") from error


def _first(cron: str, ticks: CronSim) -> float:
    try:
        return next(ticks).timestamp()
    except StopIteration as error:
        raise ScheduleError(f"{cron!r} is no cron expression that ever fires") from error
