"""Which items a backfill has: partitions of a deployment, or ticks of one of its cron triggers, by number."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping

from penstock_adapters import backfill_items
from penstock_contracts.backfills import BackfillBody, PartitionState
from penstock_core.deployments.definition import CronTrigger, Definition
from penstock_core.deployments.partitions import PartitionError, PartitionSet, moment
from penstock_core.errors import InputError
from penstock_core.frozen import frozen
from penstock_gateway.errors import UnprocessableError
from penstock_gateway.partitions.partitions_service import DeploymentPartitions

TICKS_LIMIT = 20_000
"""Largest number of ticks of a backfill."""

_EPSILON = 1e-3


@frozen(kw_only=True)
class Selection:
    """The numbers of items, ascending. Of ticks, `trigger` is their trigger, and they are counted from `since`."""

    numbers: list[int]
    trigger: str = ""
    since: float = 0.0


async def select_partitions(
    found: PartitionSet, partitions: DeploymentPartitions, name: str, body: BackfillBody
) -> Selection:
    """Return the partitions that a request selects.

    Raises:
        UnprocessableError: it selects none, or in two ways, or a key or time is not valid.
    """
    if body.trigger:
        raise _invalid("trigger", f"deployment {name!r} has partitions: its backfills are of partitions, not of ticks")
    now = time.time()
    by_range = bool(body.since or body.until)
    if by_range + bool(body.partitions) + body.all > 1:
        raise _invalid("from", "select by a range (from, to), by keys (partitions) or all, in one way only")
    if not (by_range or body.partitions or body.all or body.only):
        raise _invalid("from", "nothing is selected: give a range (from, to), keys (partitions), only, or all")
    try:
        numbers: Iterable[int] = range(found.count(now))
        if by_range:
            numbers = _between(found, body, now)
        elif body.partitions:
            numbers = sorted({found.find(key, now).number for key in body.partitions})
    except (PartitionError, InputError) as error:
        field = "partitions" if body.partitions else "from"
        raise _invalid(field, str(error)) from error
    if body.only:
        states = await partitions.states(name)
        numbers = await asyncio.to_thread(_in_states, found, numbers, states, body.only)
    return Selection(numbers=[*numbers])


def _in_states(
    found: PartitionSet, numbers: Iterable[int], states: Mapping[str, PartitionState], only: Collection[str]
) -> list[int]:
    return [one for one in numbers if states.get(found.at(one).key, PartitionState.MISSING) in only]


def _between(found: PartitionSet, body: BackfillBody, now: float) -> range:
    """The partitions from one to another, both included, each given by its key, or by a time."""
    if not found.timed:
        raise InputError("only partitions of time have ranges: give the keys of partitions")
    start, end = (found.number(text) for text in (body.since, body.until))
    count = found.count(now)
    since = found.moment(body.since) if body.since and start is None else 0.0
    until = found.moment(body.until) + _EPSILON if body.until and end is None else now
    chosen = found.between(since, until, now)
    first = chosen.start if start is None else start
    last = chosen.stop if end is None else end + 1
    return range(min(first, count), min(last, count))


async def select_ticks(definition: Definition, name: str, body: BackfillBody) -> Selection:
    """Return the ticks that a request selects.

    Raises:
        UnprocessableError: the deployment has no such cron trigger, the range is missing or has too many ticks.
    """
    for field in ("partitions", "all", "only"):
        if getattr(body, field):
            raise _invalid(field, f"deployment {name!r} has no partitions: give the range of its ticks (from, to)")
    trigger = _cron_trigger(definition, name, body.trigger)
    if not body.since or not body.until:
        raise _invalid("from", "the range of ticks has no start or no end: give both (from, to)")
    try:
        since = moment(body.since, trigger.tz) - _EPSILON
        until = min(moment(body.until, trigger.tz), time.time())
    except InputError as error:
        raise _invalid("from", str(error)) from error
    count = await asyncio.to_thread(_count, trigger, since, until)
    if count > TICKS_LIMIT:
        raise _invalid("from", f"the range has more than {TICKS_LIMIT} ticks: start several backfills")
    return Selection(numbers=[*range(count)], trigger=trigger.name, since=since)


def _cron_trigger(definition: Definition, name: str, wanted: str) -> CronTrigger:
    known = [trigger for trigger in definition.triggers if isinstance(trigger, CronTrigger)]
    found = [trigger for trigger in known if wanted in ("", trigger.name)]
    if len(found) == 1:
        return found[0]
    if not known:
        raise _invalid("deployment", f"deployment {name!r} has neither partitions nor a cron trigger to backfill")
    names = ", ".join(trigger.name for trigger in known)
    raise _invalid("trigger", f"name one of the cron triggers of deployment {name!r}: {names}")


def _count(trigger: CronTrigger, since: float, until: float) -> int:
    count = 0
    for at in backfill_items.ticks_after(trigger, since):
        if at > until or count > TICKS_LIMIT:
            break
        count += 1
    return count


def _invalid(field: str, message: str) -> UnprocessableError:
    return UnprocessableError("The backfill is invalid", message, errors=[(field, message)])
