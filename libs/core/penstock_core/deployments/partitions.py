"""Partitions of a deployment: the parts of its data that its runs compute, each with a key.

Partitions of time are the hours, days, weeks or months since a start, in a time zone; one exists once its interval has
ended. Static keys are part of the declaration; dynamic ones are added later, and keep their order. The number of a
partition, from 0, never changes, so a part of many partitions is a few ranges of numbers, whatever their keys.
"""

from __future__ import annotations

import enum
import zoneinfo
from collections.abc import Iterator, Sequence
from dataclasses import field
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar

from penstock_core.errors import InputError, PenstockError
from penstock_core.frozen import frozen

KEY_LIMIT = 200
"""Maximum length of the key of a partition, in characters."""

STATIC_LIMIT = 1_000
"""Maximum number of static keys."""

PARTITIONS_LIMIT = 100_000
"""Maximum number of partitions of a deployment: 11 years of hours."""

LABEL = "partition"
"""Label of a run with the key of its partition; also the name in its trigger and of the column of the read model."""

_EARLIEST = date(1970, 1, 2)
_LATEST = date(2999, 12, 31)

Problem = tuple[str, str]


class PartitionError(PenstockError):
    """A partition does not exist."""

    user_fault: ClassVar[bool] = True


class PartitionKind(enum.StrEnum):
    """What the partitions of a deployment are."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    """Weeks of ISO 8601, which begin on Monday."""
    MONTH = "month"
    STATIC = "static"
    """Keys that the declaration lists."""
    DYNAMIC = "dynamic"
    """Keys that are added later, by a request or by events."""


TIMED = (PartitionKind.HOUR, PartitionKind.DAY, PartitionKind.WEEK, PartitionKind.MONTH)
"""The kinds whose partitions are intervals of time."""

PARTS = ("key", "start", "end")
"""What a parameter can be mapped to; `start` and `end` only of intervals of time."""


@frozen(kw_only=True)
class Partitions:
    """The declaration of partitions.

    Attributes:
        by: the kind.
        start: of time: the first partition is the one that contains this local date (`2026-01-31`) or hour
            (`2026-01-31T08:00`).
        end: of time: no partition begins at this local date or hour, or later. Empty: there is no end.
        tz: of time: the time zone, such as `Europe/Paris`.
        keys: of static ones.
        inputs: by parameter: `key`, or `start` or `end` of the interval in RFC 3339.
    """

    by: PartitionKind
    start: str = ""
    end: str = ""
    tz: str = "UTC"
    keys: tuple[str, ...] = ()
    inputs: dict[str, str] = field(default_factory=dict[str, str])


@frozen(kw_only=True)
class Partition:
    """A partition: its number and key, and its interval in Unix seconds (0 if it is none)."""

    number: int
    key: str
    start: float = 0.0
    end: float = 0.0


def problems(found: Partitions) -> Iterator[Problem]:
    """What is wrong in a declaration: the path in it, and the problem."""
    if found.by in TIMED:
        yield from _time_problems(found)
    else:
        for name in ("start", "end"):
            if getattr(found, name):
                yield name, f"only applies to partitions by {', '.join(TIMED)}"
    if found.by is PartitionKind.STATIC:
        yield from _key_problems(found.keys)
    elif found.keys:
        yield "keys", "only applies to static partitions"
    parts = PARTS if found.by in TIMED else PARTS[:1]
    for name, part in found.inputs.items():
        if part not in parts:
            yield f"inputs.{name[:100]}", f"must be one of {', '.join(parts)}, not {part[:50]!r}"


def _time_problems(found: Partitions) -> Iterator[Problem]:
    try:
        zoneinfo.ZoneInfo(found.tz)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        yield "tz", f"{found.tz[:50]!r} is not a time zone; use one such as 'Europe/Paris' or 'UTC'"
        return
    if not found.start:
        yield "start", "is missing: the date of the first partition, such as '2026-01-31'"
    for name in ("start", "end"):
        text = getattr(found, name)
        try:
            if text and not _EARLIEST <= _local(text).date() <= _LATEST:
                yield name, f"must be between {_EARLIEST} and {_LATEST}"
        except ValueError:
            yield name, f"{text[:50]!r} is not a local date or hour; use one such as '2026-01-31' or '2026-01-31T08:00'"
    if found.start and found.end and _is_time(found.start) and _is_time(found.end) and found.end <= found.start:
        yield "end", "must be after start"


def _key_problems(keys: Sequence[str]) -> Iterator[Problem]:
    if not keys:
        yield "keys", "is empty: list the keys of the partitions"
    if len(keys) > STATIC_LIMIT:
        yield "keys", f"has {len(keys)} keys; the limit is {STATIC_LIMIT}: use dynamic partitions"
    for n, key in enumerate(keys):
        if problem := key_problem(key):
            yield f"keys[{n}]", problem
    if len({*keys}) < len(keys):
        yield "keys", "has a key twice"


def key_problem(key: str) -> str:
    """What is wrong with the key of a static or dynamic partition; empty if nothing is."""
    if not key or len(key) > KEY_LIMIT or not key.isprintable() or key != key.strip():
        return f"{key[:50]!r} is not a key: use 1 to {KEY_LIMIT} printable characters without spaces at the ends"
    return ""


# ------------------------------------------------------------------------------------------------------------- numbers


class PartitionSet:
    """The partitions of a declaration, by number and by key.

    Args:
        declared: a declaration without problems.
        added: the keys of dynamic partitions, in the order in which they were added.
    """

    def __init__(self, declared: Partitions, added: Sequence[str] = ()) -> None:
        self.declared = declared
        self.timed = declared.by in TIMED
        self._keys = declared.keys if declared.by is PartitionKind.STATIC else tuple(added)
        self._numbers = {key: number for number, key in enumerate(self._keys)}
        if self.timed:
            self._zone = zoneinfo.ZoneInfo(declared.tz)
            self._first = self._aligned(_local(declared.start))
            self._limit = self._after_last(_local(declared.end)) if declared.end else PARTITIONS_LIMIT

    def count(self, now: float) -> int:
        """Return how many partitions exist at a Unix time: of time, those whose interval has ended."""
        if not self.timed:
            return len(self._keys)
        return min(self._number_at(now), self._limit)

    def at(self, number: int) -> Partition:
        """Return the partition with a number, which must exist, or may exist later."""
        if not self.timed:
            return Partition(number=number, key=self._keys[number])
        start, end = self._start(number), self._start(number + 1)
        return Partition(number=number, key=self._key(start), start=start.timestamp(), end=end.timestamp())

    def number(self, key: str) -> int | None:
        """Return the number of the partition with a key, which may exist later only; None if there is none."""
        return self._parsed(key) if self.timed else self._numbers.get(key)

    def find(self, key: str, now: float) -> Partition:
        """Return the partition with a key.

        Raises:
            PartitionError: there is none, or not yet.
        """
        number = self.number(key)
        if number is None:
            raise PartitionError(f"there is no partition {key[:100]!r}: {self._hint()}")
        if number >= self.count(now):
            known = self.at(number)
            ends = datetime.fromtimestamp(known.end, self._zone).isoformat()
            what = "is after the last partition" if number >= self._limit else f"exists from {ends} on, when it ends"
            raise PartitionError(f"partition {key!r} {what}")
        return self.at(number)

    def finished_at(self, at: float) -> Partition | None:
        """Return the partition of time whose interval ended last at a Unix time: the one that a tick then fills."""
        count = self.count(at)
        # A tick long after the last partition of a declaration with an end belongs to none.
        return self.at(count - 1) if count and (count < self._limit or self.at(count).end > at) else None

    def between(self, start: float, end: float, now: float) -> range:
        """Return the numbers of the partitions of time that exist and begin in an interval, its end excluded."""
        count = self.count(now)
        first, last = self._number_at(start), self._number_at(end)
        first += first < count and self._start(first).timestamp() < start
        last += last < count and self._start(last).timestamp() < end
        return range(min(first, count), min(last, count))

    def containing(self, at: float) -> Partition | None:
        """Return the partition of time whose interval contains a Unix time, whether it has ended or not."""
        number = self._number_at(at)
        if number >= self._limit or self._start(number).timestamp() > at:
            return None
        return self.at(number)

    def moment(self, text: str) -> float:
        """Return the Unix time of a local date, a local hour, or a time in RFC 3339. Raises as `moment`."""
        return moment(text, self.declared.tz)

    def inputs(self, partition: Partition) -> dict[str, Any]:
        """Return the inputs of a run of a partition, by the parameters that the declaration maps."""
        values: dict[str, Any] = {"key": partition.key}
        if self.timed:
            for name, at in (("start", partition.start), ("end", partition.end)):
                values[name] = datetime.fromtimestamp(at, self._zone).isoformat().replace("+00:00", "Z")
        return {name: values[part] for name, part in self.declared.inputs.items()}

    # ---------------------------------------------------------------------------------------------------- intervals

    def _start(self, number: int) -> datetime:
        """The start of the partition with a number, in its time zone."""
        first = self._first
        match self.declared.by:
            case PartitionKind.HOUR:
                # Hours are counted in real time: a day has 23 or 25 of them when the clock changes.
                return (first.astimezone(UTC) + timedelta(hours=number)).astimezone(self._zone)
            case PartitionKind.MONTH:
                months = first.year * 12 + first.month - 1 + number
                return first.replace(year=months // 12, month=months % 12 + 1)
            case kind:
                return first + timedelta(days=number * (7 if kind is PartitionKind.WEEK else 1))

    def _number_at(self, at: float) -> int:
        """How many intervals since the first one have ended at a Unix time."""
        local = datetime.fromtimestamp(at, self._zone)
        first = self._first
        match self.declared.by:
            case PartitionKind.HOUR:
                number = int((at - first.timestamp()) // 3600)
            case PartitionKind.MONTH:
                number = (local.year - first.year) * 12 + local.month - first.month
            case kind:
                days = (local.date() - first.date()).days
                number = days // (7 if kind is PartitionKind.WEEK else 1)
        return max(number, 0)

    def _after_last(self, end: datetime) -> int:
        """The number of partitions that begin before the end of the declaration."""
        number = self._number_at(end.replace(tzinfo=self._zone).timestamp())
        begun = self._start(number).timestamp() < end.replace(tzinfo=self._zone).timestamp()
        return min(number + begun, PARTITIONS_LIMIT)

    def _aligned(self, local: datetime) -> datetime:
        """The start of the interval that contains a local time."""
        day = local.replace(hour=0, minute=0)
        match self.declared.by:
            case PartitionKind.HOUR:
                day = local.replace(minute=0)
            case PartitionKind.WEEK:
                day -= timedelta(days=day.weekday())
            case PartitionKind.MONTH:
                day = day.replace(day=1)
            case _:
                pass
        return day.replace(tzinfo=self._zone)

    def _key(self, start: datetime) -> str:
        match self.declared.by:
            case PartitionKind.HOUR:
                return start.isoformat(timespec="minutes").replace("+00:00", "Z")
            case PartitionKind.WEEK:
                year, week, _ = start.isocalendar()
                return f"{year}-W{week:02}"
            case PartitionKind.MONTH:
                return f"{start.year}-{start.month:02}"
            case _:
                return start.date().isoformat()

    def _parsed(self, key: str) -> int | None:
        """The number of a key of time; None if it is not one, or before the first one."""
        formats = {PartitionKind.WEEK: f"{key}-1", PartitionKind.MONTH: f"{key}-01"}
        try:
            found = datetime.fromisoformat(formats.get(self.declared.by, key))
            start = found if found.tzinfo else found.replace(tzinfo=self._zone)
            found_at = self.at(self._number_at(start.timestamp()))
            return found_at.number if found_at.key == key else None
        except (ValueError, OverflowError):
            return None

    def _hint(self) -> str:
        match self.declared.by:
            case PartitionKind.STATIC:
                shown = ", ".join(self._keys[:20]) + (" …" if len(self._keys) > 20 else "")
                return f"the keys are {shown}"
            case PartitionKind.DYNAMIC:
                return "add it with `penstock partitions add DEPLOYMENT KEY`"
            case kind:
                example = self._key(self._first)
                return f"the first {kind.value} is {example}, and keys have its form"


def moment(text: str, tz: str) -> float:
    """Return the Unix time of a date or a time in a time zone, or of a time in RFC 3339.

    Raises:
        InputError: it is none, or out of range.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"{text[:50]!r} is not a date or a time; use one such as '2026-01-31'") from error
    if not 1970 <= found.year < 3000:
        raise InputError(f"{text[:50]!r} is out of range: use a time between the years 1970 and 2999")
    return (found if found.tzinfo else found.replace(tzinfo=zoneinfo.ZoneInfo(tz))).timestamp()


def trigger(partition: Partition | None) -> dict[str, str]:
    """Return what the trigger and the labels of a run of a partition say about it; nothing without a partition."""
    return {} if partition is None else {LABEL: partition.key}


def _local(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    if found.tzinfo is not None:
        raise ValueError("has a time zone")
    return found.replace(second=0, microsecond=0)


def _is_time(text: str) -> bool:
    try:
        _local(text)
    except ValueError:
        return False
    return True


def ranges(numbers: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return sorted numbers as ranges: the first number of each, and its length."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and number == sum(found[-1]):
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((number, 1))
    return tuple(found)


def expand(found: Sequence[tuple[int, int]]) -> list[int]:
    """Return the numbers of ranges."""
    return [number for first, length in found for number in range(first, first + length)]
