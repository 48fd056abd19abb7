"""Follows what an attempt writes: the log of its output, and the JSON lines of what it measured, told and stored.

Nothing is kept open and nothing is read while the files do not grow, so a silent attempt costs one `stat` a look.
"""

from __future__ import annotations

import codecs
import os
import time
from collections.abc import Iterator
from typing import Any

import orjson

from penstock_core.queries import series
from penstock_core.queries.series import Point

OUTPUT_LIMIT = 4 * 1024 * 1024
"""Bytes of output of one attempt that are passed on."""

EVENTS_LIMIT = 16 * 1024 * 1024
"""Bytes of parameters, progress and the like of one attempt that are passed on."""

POINTS_LIMIT = 256 * 1024 * 1024
"""Bytes of measurements of one attempt that are passed on: more than a million of them have."""

SHOWN = 100
"""Measurements of one look that are told with the output, for people to follow; of more, the last of each name."""

COMMITS_LIMIT = 256 * 1024 * 1024
"""Bytes of lines about what one attempt stored that are passed on."""

BATCH = 128 * 1024
"""Bytes that one look takes from each file, and characters of text told at a time: JSON can make six of one."""

_ENTRY = 16 * 1024
_DISK_LIMIT = 16 * 1024 * 1024

Entry = dict[str, Any]


class Tail:
    """Reads one attempt's files, in order, each byte once.

    Args:
        base: path of the files without `.log`, `.events`, `.points` and `.commits`.
        preface: output that belongs before the log's.
    """

    def __init__(self, base: str, preface: str = "") -> None:
        # A progress bar ends its states with a carriage return. Half a line of JSON is of no use to anyone.
        self._log = _Follower(f"{base}.log", OUTPUT_LIMIT, (b"\n", b"\r"), whole=False)
        self._events = _Follower(f"{base}.events", EVENTS_LIMIT, (b"\n",), whole=True)
        self._points = Points(f"{base}.points")
        self._commits = _Follower(f"{base}.commits", COMMITS_LIMIT, (b"\n",), whole=True)
        self._preface = preface
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def done(self) -> bool:
        """Whether nothing was left at the last look."""
        files = (self._log, self._events, self._points, self._commits)
        return all(file.exhausted for file in files)

    def read(self, *, last: bool = False) -> list[Entry]:
        """The next entries, at most about `BATCH` bytes of each kind; with `last`, call it until it is `done`."""
        entries = self._said(last)
        text = self._preface + self._decoder.decode(self._log.read(last), last and self._log.exhausted)
        self._preface = ""
        if last and self._log.exhausted and self._log.dropped:
            text += f"\n[penstock] {self._log.forget():.1f} MiB of further output were left out\n"
        return entries + [_text(text[i : i + _ENTRY]) for i in range(0, len(text), _ENTRY)]

    def measured(self, *, last: bool = False) -> list[Point]:
        """The next measurements, at most about `BATCH` bytes of them."""
        return self._points.read(last)

    def committed(self, *, last: bool = False) -> list[Entry]:
        """The next lines about what the attempt stored."""
        return _entries(self._commits.read(last))

    def _said(self, last: bool) -> list[Entry]:
        entries = _entries(self._events.read(last))
        if last and self._events.exhausted and self._events.dropped:
            entries.append(_text(f"[penstock] {self._events.forget():.1f} MiB of further entries were left out\n"))
        if last and self._points.exhausted and self._points.dropped:
            entries.append(_text("[penstock] further measurements were left out: there are too many\n"))
            self._points.dropped = False
        return entries


def shown(points: list[Point]) -> list[Entry]:
    """What is told with the output of measurements."""
    return [
        {"at": point.at, "metric": point.name, "value": series.spelled(point.value), "step": point.step}
        for point in series.latest(points, SHOWN)
    ]


def _entries(lines: bytes) -> list[Entry]:
    entries: list[Entry] = []
    for line in lines.splitlines():
        try:
            entry = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue  # the user's code wrote into our file; its own lines are lost, nothing else
        if isinstance(entry, dict) and "at" in entry:
            entries.append(entry)
    return entries


class Points:
    """Reads the file of an attempt's measurements; lines that are none are dropped, and what is beyond the limits."""

    def __init__(self, path: str) -> None:
        self._file = _Follower(path, POINTS_LIMIT, (b"\n",), whole=True)
        self._names: set[str] = set()
        self._room = series.POINTS
        self.dropped = False

    @property
    def exhausted(self) -> bool:
        """Whether nothing was left at the last look."""
        return self._file.exhausted

    def read(self, last: bool) -> list[Point]:
        """The next ones."""
        lines = self._file.read(last).splitlines()
        found = [point for line in _all_json(lines) if (point := self._taken(line)) is not None]
        self.dropped = self.dropped or self._file.dropped > 0
        return found

    def _taken(self, line: Any) -> Point | None:
        point = _point(line)
        if point is None:
            return None
        if self._room <= 0 or (point.name not in self._names and len(self._names) >= series.NAMES):
            self.dropped = True
            return None
        self._names.add(point.name)
        self._room -= 1
        return point


def _all_json(lines: list[bytes]) -> list[Any]:
    if not lines:
        return []
    try:
        return orjson.loads(b"[" + b",".join(lines) + b"]")
    except orjson.JSONDecodeError:
        return [_json(line) for line in lines]  # one of them is none


def _json(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return None


def _point(line: Any) -> Point | None:
    """`[name, step, at, value]`; nothing in it is trusted."""
    match line:
        case [str(name), int() | None as step, int() | float() as at, int() | float() | str() as value]:
            fits = 0 < len(name) <= series.NAME_LIMIT and 0 <= at < 1e11 and abs(step or 0) <= series.STEP_LIMIT
            if not fits or (isinstance(value, str) and value not in series.SPECIAL):
                return None
            return Point(name, None if step is None else int(step), float(at), series.unspelled(value))
        case _:
            return None


def batches(entries: list[Entry]) -> Iterator[list[Entry]]:
    """The entries in parts that make a message each."""
    part: list[Entry] = []
    size = 0
    for entry in entries:
        size += len(entry.get("text", ""))
        if size > BATCH and part:
            yield part
            part, size = [], len(entry.get("text", ""))
        part.append(entry)
    if part:
        yield part


def _text(text: str) -> Entry:
    return {"at": time.time(), "stream": "output", "text": text}


class _Follower:
    """Takes whole lines from the end of a growing file, up to a limit; what goes beyond is counted and cleared away."""

    def __init__(self, path: str, limit: int, ends: tuple[bytes, ...], *, whole: bool) -> None:
        self._path = path
        self._ends = ends
        self._whole = whole
        self._room = limit
        self._offset = 0
        self._size = 0
        self.dropped = 0

    @property
    def exhausted(self) -> bool:
        """Whether everything that was there at the last look has been taken or counted."""
        return self._offset >= self._size

    def forget(self) -> float:
        """How much was left out so far, in MiB; counts from 0 again."""
        size, self.dropped = self.dropped, 0
        return size / 2**20

    def read(self, last: bool) -> bytes:
        """New bytes up to a line end, as far as there is one; with `last`, or once it stops growing, the rest too."""
        try:
            size = os.stat(self._path).st_size  # noqa: PTH116 - each look at each attempt comes here
        except OSError:
            self._size = self._offset  # none yet, or the user's code removed it
            return b""
        grew, self._size = size != self._size, size
        if size < self._offset:  # truncated by its writer
            self._offset = 0
        if size == self._offset:
            return b""
        if self._room <= 0:
            self._leave_out(size)
            return b""
        # A file that grows too fast is taken as far as it will be, so that it can be cut at the next look.
        data = self._take(min(size - self._offset, self._room, BATCH if size < _DISK_LIMIT else self._room))
        if not (last and self._offset + len(data) >= size):
            cut = max(data.rfind(end) for end in self._ends) + 1
            if cut:
                data = data[:cut]
            elif not last and len(data) < min(BATCH, self._room) and (grew or self._whole):
                data = b""
        self._offset += len(data)
        self._room -= len(data)
        return data

    def _take(self, count: int) -> bytes:
        try:
            with open(self._path, "rb", buffering=0) as file:  # noqa: PTH123
                file.seek(self._offset)
                return file.read(count)
        except OSError:
            return b""

    def _leave_out(self, size: int) -> None:
        self.dropped += size - self._offset
        self._offset = size
        if size > _DISK_LIMIT:
            # Its writers append, so they go on at the new end: a step that never stops printing cannot fill the disk.
            try:
                os.truncate(self._path, 0)
                self._offset = self._size = 0
            except OSError:
                return
