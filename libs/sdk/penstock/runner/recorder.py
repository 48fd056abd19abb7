"""The sink of an attempt's context: JSON lines in files that the executor follows.

Files instead of messages: each logged value costs one write, so that a loop which logs a hundred thousand metrics
neither waits for nor floods its readers; lines of threads and forked workers are complete, because each is one append.
The last values are also part of the attempt's end, within limits. Metrics and stored objects have separate files, so
that many metrics do not delay the others.
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from penstock.step_context.events import MAX_EVENTS, SentEvent
from penstock.step_context.models import MAX_MODELS, ModelRegistration
from penstock_core.queries import series
from penstock_core.shipping import progress

MAX_NAMES = 500
MAX_CHARACTERS = 64 * 1024
"""Most names, and longest JSON text, of metrics, of parameters and of artifacts in the attempt's end."""


LINE_LIMIT = 96 * 1024
"""Longest line about a stored object, in characters: it must fit into a message."""


_REGISTRATION_FIELDS = ("model", "metrics", "non_finite", "alias", "gate", "reason", "description", "tags")


class LastValues(dict[str, Any]):
    """Last values by name, bounded. Values over the limit are in the events file only."""

    room = MAX_CHARACTERS

    def keep(self, name: str, value: Any) -> None:
        """Set the value of a name."""
        size = len(json.dumps(value)) + len(name)
        earlier = self.pop(name, None)
        if earlier is not None:
            self.room += len(json.dumps(earlier)) + len(name)
        if len(self) < MAX_NAMES and size <= self.room:
            self.room -= size
            self[name] = value


class _LazyFile:
    """A file that the first write creates.

    Args:
        path: its path.
        flags: for `os.open`, besides those to write and create it.
    """

    def __init__(self, path: str, flags: int = 0) -> None:
        self._path = path
        self._flags = flags
        self._file: int | None = None
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Size of the file in bytes, which other processes of the step may have written, too; 0 if there is none."""
        try:
            return os.stat(self._path).st_size  # noqa: PTH116 - for each attempt
        except OSError:
            return 0

    @property
    def descriptor(self) -> int | None:
        """The file's descriptor in this process; None while it has written nothing."""
        return self._file

    def open(self) -> int:
        """Return the descriptor; the file is opened by the first call."""
        if self._file is None:
            with self._lock:
                if self._file is None:
                    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | self._flags
                    self._file = os.open(self._path, flags, 0o600)
        return self._file


class LatestValueFile(_LazyFile):
    """A file that has the latest of several values of the same size."""

    def write(self, value: bytes) -> None:
        """Replace the value."""
        os.pwrite(self.open(), value, 0)


class JsonLinesFile(_LazyFile):
    """A file of JSON lines."""

    def __init__(self, path: str) -> None:
        super().__init__(path, os.O_APPEND)
        self._written = 0

    def lines_of_others(self) -> list[Any]:
        """All lines, if other processes have written some of them; invalid lines are omitted."""
        if self.size == self._written:
            return []
        found: list[Any] = []
        with open(self._path, "rb") as file:  # noqa: PTH123
            for line in file:
                with suppress(ValueError, RecursionError):
                    found.append(json.loads(line))
        return found

    def write(self, entry: dict[str, Any]) -> None:
        """Append an object as a line."""
        self.append(json.dumps(entry).encode() + b"\n")

    def append(self, line: bytes) -> None:
        """Append a line with its line break."""
        self._written += os.write(self.open(), line)


class Recorder:
    """Implements `penstock.step_context.contexts.Sink`.

    Args:
        base: path of its files without `.events`, `.points`, `.commits` and `.progress`.
        save: stores an object logged under a name, and returns its value as JSON.
        slim: replaces a long value by a reference, if possible.
        load: loads such a value; also an attribute.
        whole: converts an inline value into an artifact.
        owner: process id of the step; default: this process.
    """

    def __init__(
        self,
        base: str,
        save: Callable[[str, object], dict[str, Any]],
        slim: Callable[[dict[str, Any]], dict[str, Any]],
        load: Callable[[dict[str, Any]], Any],
        whole: Callable[[dict[str, Any]], dict[str, Any]],
        owner: int | None = None,
    ) -> None:
        self._owner = owner or os.getpid()
        self.metrics: dict[str, float] = {}
        self.non_finite: dict[str, str] = {}
        self.models: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self._whole = whole
        self.params = LastValues()
        self.artifacts = LastValues()
        self.tags: dict[str, str] = {}
        self._save = save
        self._slim = slim
        self.load = load
        self._events = JsonLinesFile(f"{base}.events")
        self._points = JsonLinesFile(f"{base}.points")
        self._names: dict[str, str] = {}
        self._left = series.POINTS
        self._warned = False
        self._commits = JsonLinesFile(f"{base}.commits")
        self._progress = LatestValueFile(f"{base}.progress")

    @property
    def size(self) -> int:
        """Bytes written."""
        return sum(file.size for file in self._files)

    @property
    def descriptors(self) -> set[int]:
        """File descriptors of its files in this process."""
        found = (file.descriptor for file in self._files)
        return {one for one in found if one is not None}

    @property
    def _files(self) -> tuple[JsonLinesFile | LatestValueFile, ...]:
        return (self._events, self._points, self._commits, self._progress)

    def include_workers(self) -> None:
        """Include in the last values what other processes of the step have logged, such as a pool's workers."""
        for line in self._points.lines_of_others():
            match line:
                case [str(name), _, _, (int() | float() | "nan" | "inf" | "-inf") as value]:
                    self._keep_metric(name, series.unspelled(value))
                case _:
                    continue
        for line in self._events.lines_of_others():
            match line:
                case {"param": str(name), "value": value}:
                    self.params.keep(name, value)
                case {"tag": str(name), "value": str(text)}:
                    self.tags[name] = text
                case {"artifact": str(name), "value": dict(saved)}:
                    self.artifacts.keep(name, saved)
                case _:
                    continue

    def metric(self, name: str, value: float, step: int | None) -> None:
        """Record a metric. JSON has no NaN or infinity: such values are texts."""
        finite = self._keep_metric(name, value)
        spelled = self._names.get(name) or self._spelled(name)
        if not spelled or self._left <= 0:
            self._report_dropped_series()
            return
        self._left -= 1
        number = repr(value) if finite else f'"{series.spelled(value)}"'
        at = "null" if step is None else step
        # Formatted by hand: training loops call this for each batch.
        self._points.append(f"[{spelled},{at},{time.time():.6f},{number}]\n".encode())

    def _keep_metric(self, name: str, value: float) -> bool:
        """Keep the last value of a metric; returns whether it is finite."""
        finite = math.isfinite(value)
        (self.non_finite if finite else self.metrics).pop(name, None)
        if name in self.metrics or name in self.non_finite or len(self.metrics) + len(self.non_finite) < MAX_NAMES:
            if finite:
                self.metrics[name] = value
            else:
                self.non_finite[name] = str(value)
        return finite

    def _spelled(self, name: str) -> str:
        """Return a name as JSON; empty if there are too many series."""
        if len(self._names) >= series.NAMES:
            return ""
        return self._names.setdefault(name, json.dumps(name))

    def _report_dropped_series(self) -> None:
        """Warn once in the step's output."""
        if not self._warned:
            self._warned = True
            print(  # noqa: T201 - for readers of the step's output
                f"[penstock] further metrics are dropped: an attempt can log {series.POINTS:,} values in "
                f"{series.NAMES:,} series; log less often, or use log_table",
                file=sys.stderr,
            )

    def param(self, name: str, value: Any) -> None:
        """Record a parameter."""
        self.params.keep(name, value)
        self._events.write({"at": time.time(), "param": name, "value": value})

    def tag(self, name: str, value: str) -> None:
        """Record a tag."""
        self.tags[name] = value
        self._events.write({"at": time.time(), "tag": name, "value": value})

    def artifact(self, name: str, value: object) -> None:
        """Store an object and record its reference."""
        self._stored(name, self._save(name, value))

    def model(self, wanted: ModelRegistration) -> None:
        """Store a model as an artifact of the attempt, and keep the registration for the attempt's end.

        Raises:
            TypeError: it is stored as several artifacts.
            RuntimeError: this is another process than the step's.
            ValueError: the attempt registers too many versions.
        """
        if os.getpid() != self._owner:
            raise RuntimeError(
                f"register_model({wanted.model!r}) in a worker process: only the step's own process can register "
                "models; return the model from the worker and register it in the step"
            )
        name = f"model-{wanted.model}"
        saved = self._whole(self._save(name, wanted.value))
        if "artifact" not in saved:
            raise TypeError(
                f"register_model({wanted.model!r}): a {type(wanted.value).__name__} of this kind is stored as several "
                "artifacts: save it to a folder and register the folder's Path"
            )
        fields = {field: getattr(wanted, field) for field in _REGISTRATION_FIELDS}
        new = {**fields, "artifact": saved["artifact"], "output": name}
        same = [one for one in self.models if (one["model"], one["artifact"]) == (new["model"], new["artifact"])]
        if not same and len(self.models) >= MAX_MODELS:
            raise ValueError(f"register_model({wanted.model!r}): a step registers at most {MAX_MODELS} versions")
        self.models = [one for one in self.models if one not in same] + [new]
        self._stored(name, saved)

    def event(self, sent: SentEvent) -> None:
        """Keep an event for the attempt's end.

        Raises:
            RuntimeError: this is another process than the step's.
            ValueError: the attempt sends too many events.
        """
        if os.getpid() != self._owner:
            raise RuntimeError(
                f"send_event({sent.type!r}) in a worker process: only the step's own process can send events; return "
                "the data from the worker and send the event in the step"
            )
        if len(self.events) >= MAX_EVENTS:
            raise ValueError(f"send_event({sent.type!r}): a step sends at most {MAX_EVENTS} events")
        self.events.append({"type": sent.type, "data": sent.data, "key": sent.key})

    def wanted(self) -> list[dict[str, Any]]:
        """Return the registrations for the attempt's end; those that use the logged metrics include non-finite ones."""
        return [one if one["metrics"] is not None else {**one, "non_finite": self.non_finite} for one in self.models]

    def _stored(self, name: str, saved: dict[str, Any]) -> None:
        self.artifacts.keep(name, saved)
        self._events.write({"at": time.time(), "artifact": name, "value": saved})
        self._commit({"artifact": name}, saved)

    def progress(self, done: float, total: float, text: str) -> None:
        """Record progress."""
        self._progress.write(progress.encode(progress.Report(time.time(), done, total, text)))

    def checkpoint(self, value: object) -> Callable[[], Any]:
        """Store an object for the next attempt and record its reference."""
        saved = self._save("checkpoint", value)
        if not self._commit({"checkpoint": True}, saved):
            raise TypeError("the checkpoint consists of too many artifacts: save one folder, one table, or plain data")
        return lambda: self.load(saved)

    def _commit(self, what: dict[str, Any], saved: dict[str, Any]) -> bool:
        """Announce what was stored; False if it is too long. The end of the attempt reports artifacts anyway."""
        slim = self._slim(saved)
        short = len(json.dumps(slim)) <= LINE_LIMIT
        if short:
            self._commits.write({"at": time.time(), **what, "value": slim})
        return short
