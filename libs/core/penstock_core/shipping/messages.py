"""The messages that carry output and metrics of one attempt to the streams `LOGS` and `METRICS`.

Each carries the index of its first entry within the attempt, so that readers can order them, whatever the order of
arrival, and the broker recognizes a repeated one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from penstock_core.artifacts import committed
from penstock_core.queries import series
from penstock_core.queries.series import Point
from penstock_core.shipping.progress import Report

BATCH = 128 * 1024
"""Characters of text in one message: JSON needs up to six bytes for one."""

SHOWN = 100
"""Metrics per poll that are also sent with the output, for people to follow; beyond that, the latest of each name."""

AttemptKey = tuple[str, str, int]
"""Run id, step key and number of an attempt."""

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """A part of an attempt's output or metrics, or its progress. The broker stores one `message_id` of a stream once.

    `latest`: it replaces earlier messages on its subject.
    """

    attempt: AttemptKey
    subject: str
    body: bytes
    message_id: str
    latest: bool = False


class Messages:
    """Makes the messages of one attempt, in order.

    Args:
        attempt: the attempt.
        entries: how many entries of output earlier messages have.
        points: how many points they have.
        reports: how many reports of progress there were.
    """

    def __init__(self, attempt: AttemptKey, *, entries: int = 0, points: int = 0, reports: int = 0) -> None:
        self._attempt = attempt
        self._entries = entries
        self._points = points
        self._reports = reports

    def output(self, entries: Sequence[Entry]) -> Iterator[Message]:
        """Messages with these entries, each small enough for the broker."""
        run_id, key, attempt = self._attempt
        for part in _parts(entries):
            head = {"run_id": run_id, "key": key, "attempt": attempt, "first": self._entries}
            yield self._message("logs", self._entries, _json({**head, "entries": part}))
            self._entries += len(part)

    def metrics(self, points: Sequence[Point]) -> Iterator[Message]:
        """A message with these points, if any."""
        if points:
            yield self._message("metrics", self._points, measurements(*self._attempt, self._points, points))
            self._points += len(points)

    def progress(self, report: Report) -> Message:
        """The message with the progress of the attempt."""
        run_id, key, attempt = self._attempt
        name = f"{run_id}.{key}.{attempt}"
        body = _json({"run_id": run_id, "key": key, "attempt": attempt, **report._asdict()})
        self._reports += 1
        return Message(self._attempt, f"logs.{name}.progress", body, f"{name}.progress.{self._reports}", latest=True)

    def _message(self, stream: str, first: int, body: bytes) -> Message:
        run_id, key, attempt = self._attempt
        name = f"{run_id}.{key}.{attempt}"
        return Message(self._attempt, f"{stream}.{name}", body, f"{name}.{first}")


def measurements(run_id: str, key: str, attempt: int, first: int, points: Sequence[Point]) -> bytes:
    """Points, at least one, as the JSON of a message on `METRICS`: one list per column.

    Args:
        run_id: id of the run.
        key: key of the step.
        attempt: number of the attempt.
        first: index of the first point within the attempt.
        points: the points, in order.
    """
    names = {name: number for number, name in enumerate(dict.fromkeys(point.name for point in points))}
    start = points[0].at
    return _json(
        {
            "run_id": run_id,
            "key": key,
            "attempt": attempt,
            "first": first,
            "start": start,
            "names": list(names),
            "name": [names[point.name] for point in points],
            "step": [point.step for point in points],
            "after": [round(point.at - start, 6) for point in points],
            "value": [series.spelled(point.value) for point in points],
        }
    )


def latest(points: Sequence[Point]) -> list[Entry]:
    """The metrics that are sent with the output."""
    return [
        {"at": point.at, "metric": point.name, "value": series.spelled(point.value), "step": point.step}
        for point in series.latest(points, SHOWN)
    ]


def stored_artifact(attempt: AttemptKey, entry: Entry) -> Entry:
    """The body of the fact `ArtifactCommitted` for a line that the recorder wrote; not validated."""
    name, display_name = committed.named(str(entry.get("artifact", "")), checkpoint=entry.get("checkpoint") is True)
    run_id, key, number = attempt
    head = {"run_id": run_id, "key": key, "attempt": number, "name": name, "display_name": display_name}
    return {**head, "value": entry.get("value"), "at": entry["at"]}


def _parts(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    part: list[Entry] = []
    size = 0
    for entry in entries:
        length = len(entry.get("text", ""))
        if size + length > BATCH and part:
            yield part
            part, size = [], 0
        size += length
        part.append(entry)
    if part:
        yield part


def _json(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
