"""The sink of an attempt's context: JSON lines in a file that the executor follows.

A file, not messages: a loop that logs a hundred thousand measurements costs a write each and can neither be slowed
down by nor flood whoever reads them; lines of threads and forked workers are whole, because each is one append.
The last values also go into the attempt's end, as far as they are few and small enough for one.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Callable
from typing import Any

KEPT_NAMES = 500
KEPT_CHARACTERS = 64 * 1024
"""How many names, and how much JSON text, of metrics, parameters and artifacts each go into the attempt's end."""


class Last(dict[str, Any]):
    """Last values by name, bounded. What no longer fits is left out here; the events file has it all the same."""

    room = KEPT_CHARACTERS

    def keep(self, name: str, value: Any) -> None:
        """Take a value, in place of an earlier one of this name."""
        size = len(json.dumps(value)) + len(name)
        earlier = self.pop(name, None)
        if earlier is not None:
            self.room += len(json.dumps(earlier)) + len(name)
        if len(self) < KEPT_NAMES and size <= self.room:
            self.room -= size
            self[name] = value


class Recorder:
    """Implements `penstock.contexts.Sink`.

    Args:
        path: the file that gets the lines; made with the first one.
        save: turns a live object, logged under a name, into a value in JSON form, storing it.
    """

    def __init__(self, path: str, save: Callable[[str, object], dict[str, Any]]) -> None:
        self.metrics: dict[str, float] = {}
        self.params = Last()
        self.artifacts = Last()
        self._path = path
        self._save = save
        self._file: int | None = None
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Bytes written; 0 when there is no file."""
        return 0 if self._file is None else os.fstat(self._file).st_size

    def metric(self, name: str, value: float, step: int | None) -> None:
        """Record a measurement. JSON has no NaN or infinity: such a value is text here and absent from the end."""
        finite = math.isfinite(value)
        if not finite:
            self.metrics.pop(name, None)
        elif name in self.metrics or len(self.metrics) < KEPT_NAMES:
            self.metrics[name] = value
        self._write({"at": time.time(), "metric": name, "value": value if finite else str(value), "step": step})

    def param(self, name: str, value: Any) -> None:
        """Record a parameter."""
        self.params.keep(name, value)
        self._write({"at": time.time(), "param": name, "value": value})

    def artifact(self, name: str, value: object) -> None:
        """Store an object and record where it lies."""
        saved = self._save(name, value)
        self.artifacts.keep(name, saved)
        self._write({"at": time.time(), "artifact": name, "value": saved})

    def progress(self, fraction: float, text: str) -> None:
        """Record how far the step is."""
        self._write({"at": time.time(), "progress": fraction, "text": text})

    def _write(self, entry: dict[str, Any]) -> None:
        if self._file is None:
            with self._lock:
                if self._file is None:
                    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                    self._file = os.open(self._path, flags, 0o600)
        os.write(self._file, json.dumps(entry).encode() + b"\n")
