"""Puts what happens to attempts into facts and hands them to the listener."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from penstock_adapters.process.job import Job
from penstock_adapters.process.output import Entry, batches, shown
from penstock_contracts import fact_codec as codec
from penstock_contracts import subjects
from penstock_core import committed_artifacts
from penstock_core.facts import (
    ArtifactCommitted,
    AttemptFinished,
    AttemptRequested,
    AttemptStarted,
    ErrorInfo,
    Outcome,
)
from penstock_core.ports import AttemptEvents
from penstock_core.queries.series import Point

_log = logging.getLogger(__name__)


class AttemptReporter:
    """Speaks for one executor. A listener that raises is logged and harms nobody."""

    def __init__(self, executor_id: str, events: AttemptEvents) -> None:
        self._id = executor_id
        self._events = events
        self._host = socket.gethostname()

    def started(self, job: Job) -> None:
        """The job's process runs."""
        run_id, key, attempt = job.name
        fact = AttemptStarted(
            run_id=run_id,
            key=key,
            attempt=attempt,
            executor=self._id,
            host=self._host,
            pid=job.pid,
            started_at=job.started_at,
        )
        _call(self._events.started, fact)

    def output(self, job: Job, entries: list[Entry]) -> None:
        """The job wrote something, or nothing."""
        for part in batches(entries):
            _call(self._events.output, *job.name, part)

    def measured(self, job: Job, points: list[Point]) -> None:
        """The job measured something, or nothing; what people may want to follow is told with its output, too."""
        if points:
            _call(self._events.measured, *job.name, points)
            _call(self._events.output, *job.name, shown(points))

    def committed(self, job: Job, entries: list[Entry]) -> None:
        """The job stored things while it runs. Nothing in the lines is trusted: those that are none are dropped."""
        for entry in entries:
            name, display_name = committed_artifacts.named(
                str(entry.get("artifact", "")), checkpoint=entry.get("checkpoint") is True
            )
            run_id, key, attempt = job.name
            body = {"run_id": run_id, "key": key, "attempt": attempt, "name": name, "display_name": display_name}
            told = orjson.dumps({**body, "value": entry.get("value"), "at": entry["at"]})
            fact = codec.decode(subjects.committed(run_id, key, attempt, name), told)
            if isinstance(fact, ArtifactCommitted):
                _call(self._events.committed, fact)
            else:
                _log.warning("a line of an attempt about what it stored is dropped: %s", fact)

    def finished(self, fact: AttemptFinished) -> None:
        """An attempt ended."""
        _call(self._events.finished, fact)

    def end(
        self, attempt: AttemptRequested, outcome: Outcome, error: ErrorInfo, started_at: float = 0.0
    ) -> AttemptFinished:
        """An end that the attempt did not report itself."""
        return AttemptFinished(
            run_id=attempt.run_id,
            key=attempt.key,
            attempt=attempt.attempt,
            outcome=outcome,
            error=error,
            executor=self._id,
            started_at=started_at,
            finished_at=time.time(),
        )

    def reported(self, job: Job, body: bytes) -> AttemptFinished:
        """The end that the attempt's process sent; without `body` it lies in a file. Nothing in it is trusted."""
        place = subjects.finished(*job.name)
        try:
            fact = codec.decode(place, body or _read(Path(f"{job.base}.result")))
        except (OSError, ValueError) as error:
            fact = codec.UnreadableFact(place, str(error))
        if isinstance(fact, AttemptFinished) and fact.outcome in (Outcome.SUCCEEDED, Outcome.FAILED):
            return replace(fact, executor=self._id)
        why = fact.why if isinstance(fact, codec.UnreadableFact) else "it is no end that a step can have"
        error = ErrorInfo(type="BadResult", message=f"the result of the step cannot be used: {why}")
        return self.end(job.request, Outcome.FAILED, error, job.started_at)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(codec.MAX_BODY + 1)


def _call(tell: Callable[..., None], *args: Any) -> None:
    try:
        tell(*args)
    except Exception:
        _log.exception("a listener of the executor failed")
