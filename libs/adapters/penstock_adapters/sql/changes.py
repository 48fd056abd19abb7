"""The changes of a batch of facts, as plain rows, merged so that each row is written once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

Row = dict[str, Any]

OPEN = ("queued_for_limit", "queued", "suspended", "running")
"""States of an attempt that has not ended."""

TEXT_LIMIT = 200
"""Largest length of a searchable text; PostgreSQL's indexes are limited."""


class AttemptId(NamedTuple):
    """An attempt; number 0 is the step itself: skipped, expanded into items, or reused from another run."""

    run_id: str
    key: str
    attempt: int


class LineageLink(NamedTuple):
    """An attempt reads, as `name`, the artifacts that `maker` gave as `output`; number 0 means all its items."""

    reader: AttemptId
    name: str
    maker: AttemptId
    output: str
    seq: int


@dataclass(slots=True)
class RunChange:
    """A run's row: `new` is the complete row where the batch has the request, `changed` the later changes."""

    new: Row = field(default_factory=dict[str, Any])
    changed: Row = field(default_factory=dict[str, Any])
    started_at: float | None = None
    last_seq: int = 0


@dataclass(slots=True)
class AttemptChange:
    """Columns of an attempt; `ended` if its end is among the facts."""

    ended: bool = False
    row: Row = field(default_factory=dict[str, Any])


@dataclass(slots=True)
class Changes:
    """Rows by table. A later fact about a row overrides an earlier one. Runs in `deleted` were deleted."""

    runs: dict[str, RunChange] = field(default_factory=dict[str, RunChange])
    attempts: dict[AttemptId, AttemptChange] = field(default_factory=dict[AttemptId, AttemptChange])
    named: dict[str, dict[tuple[str, ...], Row]] = field(default_factory=dict[str, dict[tuple[str, ...], Row]])
    artifacts: dict[str, Row] = field(default_factory=dict[str, Row])
    uses: dict[tuple[Any, ...], Row] = field(default_factory=dict[tuple[Any, ...], Row])
    links: list[LineageLink] = field(default_factory=list[LineageLink])
    deleted: set[str] = field(default_factory=set[str])

    def run(self, run_id: str, seq: int) -> RunChange:
        """The change of the run of a fact at `seq`."""
        change = self.runs.setdefault(run_id, RunChange())
        change.last_seq = max(change.last_seq, seq)
        return change

    def attempt(self, attempt: AttemptId, row: Row) -> None:
        """Add the columns of a fact, with the state; an ended attempt stays ended, whatever comes late."""
        change = self.attempts.setdefault(attempt, AttemptChange())
        ends = row["state"] not in OPEN
        if change.ended and not ends:
            row = {name: value for name, value in row.items() if name != "state"}
        change.ended = change.ended or ends
        change.row |= row

    def name(self, table: str, run_id: str, name: str, key: str, row: Row) -> None:
        """Set a label, parameter or metric of a step, or of the run where `key` is empty."""
        name = clean(name, TEXT_LIMIT)
        whole = {"run_id": run_id, "name": name, "key": key, **row}
        self.named.setdefault(table, {})[run_id, name, key] = whole


def clean(text: str, limit: int | None = None) -> str:
    """Text that every database accepts: without NUL, at most `limit` characters."""
    if "\0" in text:
        text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text if limit is None or len(text) <= limit else text[:limit]
