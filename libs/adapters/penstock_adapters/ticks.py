"""When a schedule ticks: cron expressions by cronsim, in the schedule's own time zone, daylight saving included.

As in Debian's cron, a tick that falls into the hour which is skipped in spring happens right after it, and one in the
hour that is repeated in autumn happens once.
"""

from __future__ import annotations

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
    try:
        zone = zoneinfo.ZoneInfo(tz)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ScheduleError(f"{tz!r} is no time zone, such as 'Europe/Paris' or 'UTC'") from error
    try:
        return next(CronSim(cron, datetime.fromtimestamp(after, zone))).timestamp()
    except (CronSimError, StopIteration) as error:
        raise ScheduleError(f"{cron!r} is no cron expression that ever fires: {error}".rstrip(": ")) from error
