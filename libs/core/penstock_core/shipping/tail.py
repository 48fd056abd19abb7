"""Reads the files that an attempt writes: its output, and JSON lines of parameters, metrics and stored artifacts.

The attempt's process may write anything into them, so nothing in them is trusted: limits bound what is shipped, and
lines that are not valid are dropped. A file that does not grow costs one look at its size per poll.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from typing import Any, Protocol

from penstock_core.queries import series
from penstock_core.queries.series import Point
from penstock_core.shipping import progress
from penstock_core.shipping.messages import BATCH, Entry
from penstock_core.shipping.progress import Report

OUTPUT_LIMIT = 4 * 1024 * 1024
"""Bytes of output per attempt that are shipped."""

EVENTS_LIMIT = 16 * 1024 * 1024
"""Bytes of parameters and the like per attempt that are shipped."""

POINTS_LIMIT = 256 * 1024 * 1024
"""Bytes of metrics per attempt that are shipped: enough for more than a million points."""

COMMITS_LIMIT = 256 * 1024 * 1024
"""Bytes of lines about stored artifacts per attempt that are shipped."""

PROGRESS_INTERVAL = 1.0
"""Seconds between two reports of the progress of one attempt that are shipped."""

_ENTRY = 16 * 1024
_DISK_LIMIT = 16 * 1024 * 1024


class GrowingFile(Protocol):
    """A file that another process appends to. It may not exist yet, or be removed: then it is empty."""

    def size(self) -> int | None:
        """Size in bytes; None when there is no file."""
        ...

    def read(self, offset: int, count: int) -> bytes:
        """At most `count` bytes from `offset`."""
        ...

    def truncate(self) -> bool:
        """Remove the content; False when this is not possible."""
        ...


class Tail:
    """Reads one attempt's files in order, each byte once.

    Args:
        opener: gives the file with a suffix: `log`, `events`, `points`, `commits` or `progress`.
        clock: gives Unix seconds, for the time of output.
        preface: output that precedes that of the log.
    """

    def __init__(self, opener: Callable[[str], GrowingFile], clock: Callable[[], float], preface: str = "") -> None:
        # A progress bar ends its states with a carriage return. Half a line of JSON is of no use to anyone.
        self._log = _LineReader(opener("log"), OUTPUT_LIMIT, (b"\n", b"\r"), whole=False)
        self._events = _LineReader(opener("events"), EVENTS_LIMIT, (b"\n",), whole=True)
        self._points = PointReader(opener("points"))
        self._commits = _LineReader(opener("commits"), COMMITS_LIMIT, (b"\n",), whole=True)
        self._progress = opener("progress")
        self._progress_content = b""
        self._progress_at = 0.0
        self._clock = clock
        self._preface = preface
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def exhausted(self) -> bool:
        """Whether the last look left nothing unread."""
        files = (self._log, self._events, self._points, self._commits)
        return all(file.exhausted for file in files)

    def entries(self, *, last: bool = False) -> list[Entry]:
        """The next entries of output and events; with `last`, partial lines too."""
        entries = self._read_events(last)
        text = self._preface + self._decoder.decode(self._log.read(last), last and self._log.exhausted)
        self._preface = ""
        if last and self._log.exhausted and self._log.dropped:
            text += f"\n[penstock] {self._log.take_dropped():.1f} MiB of further output were dropped\n"
        return entries + [self._text(text[i : i + _ENTRY]) for i in range(0, len(text), _ENTRY)]

    def points(self, *, last: bool = False) -> list[Point]:
        """The next points of the metrics."""
        return self._points.read(last)

    def commits(self, *, last: bool = False) -> list[Entry]:
        """The next lines about stored artifacts."""
        return _entries(self._commits.read(last))

    def progress(self, *, last: bool = False) -> Report | None:
        """The latest progress, if it is new and, except with `last`, some time has passed since the one before."""
        now = self._clock()
        if (not last and 0 <= now - self._progress_at < PROGRESS_INTERVAL) or not self._progress.size():
            return None
        content = self._progress.read(0, progress.SIZE)
        if content == self._progress_content:
            return None
        self._progress_content, self._progress_at = content, now
        return progress.decode(content)

    def _read_events(self, last: bool) -> list[Entry]:
        entries = _entries(self._events.read(last))
        if last and self._events.exhausted and self._events.dropped:
            size = self._events.take_dropped()
            entries.append(self._text(f"[penstock] {size:.1f} MiB of further entries were dropped\n"))
        if last and self._points.exhausted and self._points.dropped:
            entries.append(self._text("[penstock] further metrics were dropped: there are too many\n"))
            self._points.dropped = False
        return entries

    def _text(self, text: str) -> Entry:
        return {"at": self._clock(), "stream": "output", "text": text}


def _entries(lines: bytes) -> list[Entry]:
    # The user's code may write into the file; its own lines are dropped, nothing else.
    return [entry for line in lines.splitlines() if isinstance(entry := _json(line), dict) and "at" in entry]


class PointReader:
    """Reads the file of metrics. Invalid lines are dropped, and points beyond the limits."""

    def __init__(self, file: GrowingFile) -> None:
        self._file = _LineReader(file, POINTS_LIMIT, (b"\n",), whole=True)
        self._names: set[str] = set()
        self._room = series.POINTS
        self.dropped = False

    @property
    def exhausted(self) -> bool:
        """Whether the last look left nothing unread."""
        return self._file.exhausted

    def read(self, last: bool) -> list[Point]:
        """The next points; with `last`, those of a partial line too."""
        lines = self._file.read(last).splitlines()
        found = [point for line in _all_json(lines) if (point := self._accept(line)) is not None]
        self.dropped = self.dropped or self._file.dropped > 0
        return found

    def _accept(self, line: Any) -> Point | None:
        point = read_point(line)
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
    found = _json(b"[" + b",".join(lines) + b"]")
    return [_json(line) for line in lines] if found is None else found  # one line is invalid


def _json(text: bytes) -> Any:
    try:
        return _DECODER.decode(text.decode())
    except (ValueError, RecursionError):
        return None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)


def read_point(line: Any) -> Point | None:
    """Read `[name, step, at, value]`, of which nothing is trusted; None if it is not valid."""
    match line:
        case [str(name), int() | None as step, int() | float() as at, int() | float() | str() as value]:
            fits = 0 < len(name) <= series.NAME_LIMIT and 0 <= at < 1e11 and abs(step or 0) <= series.STEP_LIMIT
            if not fits or (isinstance(value, str) and value not in series.SPECIAL):
                return None
            try:
                return Point(name, None if step is None else int(step), float(at), series.unspelled(value))
            except OverflowError:  # an integer that no float can hold
                return None
        case _:
            return None


class _LineReader:
    """Reads whole lines from the end of a growing file, up to a limit; bytes beyond it are counted and removed."""

    def __init__(self, file: GrowingFile, limit: int, ends: tuple[bytes, ...], *, whole: bool) -> None:
        self._file = file
        self._ends = ends
        self._whole = whole
        self._room = limit
        self._offset = 0
        self._size = 0
        self.dropped = 0

    @property
    def exhausted(self) -> bool:
        """Whether all bytes of the last look have been read or counted."""
        return self._offset >= self._size

    def take_dropped(self) -> float:
        """MiB dropped since the last call."""
        size, self.dropped = self.dropped, 0
        return size / 2**20

    def read(self, last: bool) -> bytes:
        """New bytes up to the last end of a line; with `last`, or once the file stops growing, the rest too."""
        size = self._file.size()
        if size is None:
            self._size = self._offset
            return b""
        grew, self._size = size != self._size, size
        if size < self._offset:  # truncated by its writer
            self._offset = 0
        if size == self._offset:
            return b""
        if self._room <= 0:
            self._drop(size)
            return b""
        # A file that grows too fast is read up to its limit at once, so that it can be truncated at the next look.
        count = min(size - self._offset, self._room, BATCH if size < _DISK_LIMIT else self._room)
        data = self._file.read(self._offset, count)
        if not (last and self._offset + len(data) >= size):
            cut = max(data.rfind(end) for end in self._ends) + 1
            if cut:
                data = data[:cut]
            elif not last and len(data) < min(BATCH, self._room) and (grew or self._whole):
                data = b""
        self._offset += len(data)
        self._room -= len(data)
        return data

    def _drop(self, size: int) -> None:
        self.dropped += size - self._offset
        self._offset = size
        # Its writers append, so they continue at the new end: a step that never stops printing cannot fill the disk.
        if size > _DISK_LIMIT and self._file.truncate():
            self._offset = self._size = 0
