"""Series of metrics: written in parts as they arrive, read completely, in pages, or downsampled for a chart.

A part is a row: its summary is in columns, its points are packed (24 bytes each). So a hundred thousand points are some
dozens of rows, and their summary reads no points.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa

from penstock_adapters.sql import engine, tables
from penstock_adapters.sql.changes import TEXT_LIMIT, clean
from penstock_adapters.sql.engine import Database
from penstock_core.queries import series
from penstock_core.queries.series import Point

STREAM = "METRICS"
_NO_STEP = -(2**63)
_SERIES = tables.series.c

Row = dict[str, Any]


class PointBatch(NamedTuple):
    """Points of one attempt, in order; `first` is the index of the first one, `seq` its sequence in the stream."""

    seq: int
    run_id: str
    key: str
    attempt: int
    first: int
    points: list[Point]


@dataclass(frozen=True, slots=True)
class Series:
    """The summary of a series. `low` and `high` are None where all values are NaN."""

    name: str
    key: str
    attempt: int
    count: int
    low: float | None
    high: float | None
    last: float
    last_step: int | None
    last_at: float


@dataclass(frozen=True, slots=True)
class PointRange:
    """Points of a series, in order. `end` is the start of the next page, None at the end."""

    points: list[Point]
    end: tuple[int, int] | None = None


# ----------------------------------------------------------------------------------------------------------- writing


def rows(parts: Iterable[PointBatch]) -> list[Row]:
    """The rows of parts, each once: a repeated part is the same."""
    found: dict[tuple[Any, ...], Row] = {}
    for part in parts:
        by_name: dict[str, list[tuple[int, Point]]] = {}
        for index, point in enumerate(part.points, part.first):
            by_name.setdefault(clean(point.name, TEXT_LIMIT), []).append((index, point))
        for name, numbered in by_name.items():
            place = (part.run_id, name, part.key, part.attempt, numbered[0][0])
            found[place] = dict(zip(_PLACE, place, strict=True)) | _row(part.seq, [point for _, point in numbered])
    return list(found.values())


_PLACE = ("run_id", "name", "key", "attempt", "first")


def _row(seq: int, points: list[Point]) -> Row:
    known = series.summary([point.value for point in points])
    last = points[-1]
    return {
        "seq": seq,
        "count": known.count,
        "low": known.low,
        "high": known.high,
        "last": None if math.isnan(known.last) else known.last,
        "last_step": last.step,
        "last_at": last.at,
        "points": pack(points),
    }


def pack(points: Sequence[Point]) -> bytes:
    """The points of one series: all steps, all times, all values, each of 8 bytes, little-endian."""
    columns = (
        array("q", [_NO_STEP if point.step is None else point.step for point in points]),
        array("d", [point.at for point in points]),
        array("d", [point.value for point in points]),
    )
    return b"".join(_native(column).tobytes() for column in columns)


def unpack(name: str, packed: bytes) -> list[Point]:
    """Unpack the points of `pack`."""
    size = len(packed) // 3
    steps, times, values = array("q"), array("d"), array("d")
    for column, number in ((steps, 0), (times, 1), (values, 2)):
        column.frombytes(packed[number * size : (number + 1) * size])
        _native(column)
    return [
        Point(name, None if step == _NO_STEP else step, at, value)
        for step, at, value in zip(steps, times, values, strict=True)
    ]


def _native(column: array[Any]) -> array[Any]:
    if sys.byteorder == "big":
        column.byteswap()
    return column


# ----------------------------------------------------------------------------------------------------------- reading


def summaries(
    database: Database,
    run_id: str,
    name: str | None = None,
    key: str | None = None,
    attempt: int | None = None,
    limit: int = 1000,
) -> list[Series]:
    """The series of a run, by name and step, of the last attempt that logged them, or of one attempt."""
    with engine.errors("the series cannot be read"), database.read.begin() as connection:
        place = (_SERIES.name, _SERIES.key, _SERIES.attempt)
        where = _chosen(run_id, name, key, attempt)
        lasts = sa.select(*place, sa.func.max(_SERIES.first).label("first")).where(*where).group_by(*place)
        sums = (sa.func.sum(_SERIES.count), sa.func.min(_SERIES.low), sa.func.max(_SERIES.high))
        known = sa.select(*place, *sums).where(*where).group_by(*place)
        if attempt is None:
            newest = sa.select(_SERIES.name, _SERIES.key, sa.func.max(_SERIES.attempt).label("attempt")).where(*where)
            chosen = newest.group_by(_SERIES.name, _SERIES.key).subquery()
            same = (chosen.c.name == _SERIES.name, chosen.c.key == _SERIES.key, chosen.c.attempt == _SERIES.attempt)
            known = known.join(chosen, sa.and_(*same))
        known = known.order_by(*place).limit(limit)
        found = {tuple(row[:3]): row[3:] for row in connection.execute(known)}
        ends = lasts.subquery()
        last = sa.select(*place, _SERIES.last, _SERIES.last_step, _SERIES.last_at).join(
            ends,
            sa.and_(*(ends.c[column.name] == column for column in (*place, _SERIES.first))),
        )
        tails = {tuple(row[:3]): row[3:] for row in connection.execute(last.where(_SERIES.run_id == run_id))}
    return [_series(one, known, tails[one]) for one, known in found.items()]


def _series(place: Any, known: Any, tail: Any) -> Series:
    (name, key, attempt), (count, low, high), (last, last_step, last_at) = place, known, tail
    value = math.nan if last is None else last
    return Series(name, key, attempt, int(count), low, high, value, last_step, last_at)


def _chosen(run_id: str, name: str | None, key: str | None, attempt: int | None) -> list[Any]:
    where: list[Any] = [_SERIES.run_id == run_id]
    given = ((_SERIES.name, name and clean(name, TEXT_LIMIT)), (_SERIES.key, key), (_SERIES.attempt, attempt))
    return where + [column == value for column, value in given if value is not None]


def page(
    database: Database, run_id: str, one: Series, after: tuple[int, int] | None = None, limit: int = 10_000
) -> PointRange:
    """Points of a series, in order, from a page's end on."""
    found: list[Point] = []
    part, begin = after or (0, 0)
    with engine.errors("the series cannot be read"), database.read.begin() as connection:
        for first, packed in _parts(connection, run_id, one, part):
            points = unpack(one.name, packed)
            start = begin if first == part else 0
            room = limit - len(found)
            found += points[start : start + room]
            if len(points) - start > room:
                return PointRange(found, (first, start + room))
    return PointRange(found)


def thinned(database: Database, run_id: str, one: Series, most: int) -> PointRange:
    """At most `most` points of a series, among them its first, last, smallest and largest."""
    with engine.errors("the series cannot be read"), database.read.begin() as connection:
        points = [point for _, packed in _parts(connection, run_id, one, 0) for point in unpack(one.name, packed)]
    return PointRange([points[index] for index in series.thinned([point.value for point in points], most)])


def _parts(connection: sa.Connection, run_id: str, one: Series, begin: int) -> Iterator[tuple[int, bytes]]:
    where = _chosen(run_id, one.name, one.key, one.attempt)
    wanted = sa.select(_SERIES.first, _SERIES.points).where(*where, _SERIES.first >= begin).order_by(_SERIES.first)
    for first, packed in connection.execute(wanted):
        yield first, bytes(packed)
