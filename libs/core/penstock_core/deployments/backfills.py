"""The state of a backfill: the fold of its facts, and the facts that may be appended. Pure.

An item is pending, active or ended. `advance` ends items and starts as many pending ones as may be active. The broker
stores each number of a fact once, so that of several replicas that advance a backfill, one does; the others fold its
fact and find nothing left to do. The id of a run derives from the backfill, the key of the item and the round, so
requesting it again changes nothing.
"""

from __future__ import annotations

import enum
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from penstock_core import ids
from penstock_core.deployments import partitions
from penstock_core.deployments.backfill_facts import (
    ACTIVE_LIMIT,
    ERROR_LIMIT,
    BackfillAdvanced,
    BackfillCancelled,
    BackfillFact,
    BackfillPaused,
    BackfillResumed,
    BackfillRetried,
    BackfillStarted,
    ItemOutcome,
)
from penstock_core.errors import PenstockError

LABEL = "backfill"
"""Label of the runs of a backfill, with its id."""

ERRORS_KEPT = 20
"""Errors of rejected items that a state remembers."""


class BackfillError(PenstockError):
    """A change of a backfill is refused."""

    user_fault: ClassVar[bool] = True


class NoBackfillError(BackfillError):
    """The backfill does not exist."""


class Status(enum.StrEnum):
    """What a backfill does."""

    RUNNING = "running"
    PAUSED = "paused"
    """No further items start; runs may be active."""
    CANCELLING = "cancelling"
    """It is cancelled, and runs are active."""
    CANCELLED = "cancelled"
    SUCCEEDED = "succeeded"
    """The last run of each item succeeded."""
    FAILED = "failed"
    """All items have run, and not all succeeded."""


FINISHED = (Status.CANCELLED, Status.SUCCEEDED, Status.FAILED)


@dataclass(slots=True)
class Backfill:
    """The state of a backfill. Read its attributes; change it through `evolve` only.

    Attributes:
        number: the last fact that is folded.
        started: its first fact; None: it does not exist.
        pending: numbers of items that have not started, in the order in which they will.
        active: numbers of items whose runs were requested and have not ended.
        ended: outcome of each ended item, by number.
        rounds: how many times an item was retried, by number; those that never were are missing.
        errors: the latest errors of rejected items, by number.
        finished_at: the time of the last fact that ended an item.
    """

    project: str
    id: str
    number: int = 0
    started: BackfillStarted | None = None
    paused: bool = False
    cancelled: BackfillCancelled | None = None
    pending: deque[int] = field(default_factory=deque[int])
    active: set[int] = field(default_factory=set[int])
    ended: dict[int, ItemOutcome] = field(default_factory=dict[int, ItemOutcome])
    rounds: dict[int, int] = field(default_factory=dict[int, int])
    errors: dict[int, str] = field(default_factory=dict[int, str])
    finished_at: float = 0.0

    def require(self) -> BackfillStarted:
        """Return its first fact.

        Raises:
            NoBackfillError: it does not exist.
        """
        if self.started is None:
            raise NoBackfillError(f"there is no backfill {self.id!r}: list them with `penstock backfills list`")
        return self.started

    @property
    def status(self) -> Status:
        """What it does now."""
        if self.cancelled is not None:
            return Status.CANCELLING if self.active else Status.CANCELLED
        if self.pending and self.paused:
            return Status.PAUSED
        if self.pending or self.active:
            return Status.RUNNING
        good = all(outcome is ItemOutcome.SUCCEEDED for outcome in self.ended.values())
        return Status.SUCCEEDED if good else Status.FAILED

    @property
    def counts(self) -> Counter[str]:
        """How many items are pending, active, or ended with each outcome."""
        found = Counter(outcome.value for outcome in self.ended.values())
        found.update(pending=len(self.pending), active=len(self.active))
        return found

    @property
    def failed(self) -> list[int]:
        """The numbers of items that ended and did not succeed."""
        return sorted(number for number, outcome in self.ended.items() if outcome is not ItemOutcome.SUCCEEDED)

    def run_id(self, number: int, key: str) -> str:
        """Return the id of the latest run of an item: the same one however often it is requested."""
        started, turn = self.require(), self.rounds.get(number, 0)
        return ids.run_id_from_key(self.project, started.pipeline, f"\0backfill:{self.id}:{key}:{turn}")


def outcome(state: str) -> ItemOutcome:
    """Return the outcome of an item from the state of its finished run."""
    ends = (ItemOutcome.SUCCEEDED, ItemOutcome.CANCELLED, ItemOutcome.SKIPPED)
    return next((end for end in ends if end.value == state), ItemOutcome.FAILED)


def evolve(backfill: Backfill, fact: BackfillFact | None, number: int) -> Backfill:
    """Fold a fact; None is an unreadable one. Takes ownership of `backfill` and returns it."""
    if number <= backfill.number:
        return backfill
    backfill.number = number
    match fact:
        case BackfillStarted() if backfill.started is None:
            backfill.started = fact
            numbers = partitions.expand(fact.ranges)
            backfill.pending.extend(reversed(numbers) if fact.newest_first else numbers)
        case _ if backfill.started is None:
            pass
        case BackfillAdvanced():
            _advanced(backfill, fact)
        case BackfillPaused():
            backfill.paused = True
        case BackfillResumed():
            backfill.paused = False
        case BackfillCancelled():
            backfill.cancelled = fact
        case BackfillRetried():
            _retried(backfill, backfill.started)
        case _:
            pass
    return backfill


def _advanced(backfill: Backfill, fact: BackfillAdvanced) -> None:
    for number, outcome in fact.ended:
        if number in backfill.active:
            backfill.active.discard(number)
            backfill.ended[number] = outcome
            backfill.finished_at = fact.at
    for number in fact.started:
        # Items start in the order of the queue, so the head is the one unless a fact could not be read.
        if backfill.pending and backfill.pending[0] == number:
            backfill.pending.popleft()
        elif number in backfill.pending:
            backfill.pending.remove(number)
        else:
            continue
        backfill.active.add(number)
    for number, error in fact.errors:
        backfill.errors.pop(number, None)
        backfill.errors[number] = error
        if len(backfill.errors) > ERRORS_KEPT:
            del backfill.errors[next(iter(backfill.errors))]


def _retried(backfill: Backfill, started: BackfillStarted) -> None:
    again = backfill.failed
    for number in again:
        del backfill.ended[number]
        backfill.rounds[number] = backfill.rounds.get(number, 0) + 1
        backfill.errors.pop(number, None)
    backfill.pending = deque(sorted([*backfill.pending, *again], reverse=started.newest_first))


# --------------------------------------------------------------------------------------------------------------- decide


def advance(
    backfill: Backfill, ends: Mapping[int, ItemOutcome], at: float, errors: Mapping[int, str] | None = None
) -> list[BackfillFact]:
    """Return the fact that items ended and that others start; none if nothing changes.

    Args:
        backfill: the backfill.
        ends: outcomes of active items, by number; those of other items are ignored.
        at: Unix time in seconds.
        errors: of rejected items.
    """
    if backfill.started is None:
        return []
    ended = tuple(sorted((number, outcome) for number, outcome in ends.items() if number in backfill.active))
    free = min(backfill.started.max_active, ACTIVE_LIMIT) - len(backfill.active) + len(ended)
    stopped = backfill.paused or backfill.cancelled is not None
    started = () if stopped else tuple(backfill.pending[n] for n in range(min(max(free, 0), len(backfill.pending))))
    if not ended and not started:
        return []
    known = {number for number, _ in ended}
    shown = tuple((number, text[:ERROR_LIMIT]) for number, text in (errors or {}).items() if number in known)
    return [BackfillAdvanced(**_next(backfill, "", at), ended=ended, started=started, errors=shown[:ERRORS_KEPT])]


def pause(backfill: Backfill, by: str, at: float, reason: str = "") -> list[BackfillFact]:
    """Return the fact that it is paused; none if it is.

    Raises:
        BackfillError: it does not exist, or has finished.
    """
    _check_unfinished(backfill, "paused")
    return [] if backfill.paused else [BackfillPaused(**_next(backfill, by, at), reason=reason)]


def resume(backfill: Backfill, by: str, at: float, reason: str = "") -> list[BackfillFact]:
    """Return the fact that it is resumed; none if it is not paused. Raises as `pause`."""
    _check_unfinished(backfill, "resumed")
    return [BackfillResumed(**_next(backfill, by, at), reason=reason)] if backfill.paused else []


def cancel(backfill: Backfill, by: str, at: float, reason: str = "", *, runs: bool) -> list[BackfillFact]:
    """Return the fact that it is cancelled, with or without its active runs; none if nothing changes.

    Raises:
        BackfillError: it does not exist, or has finished by itself.
    """
    backfill.require()
    if backfill.status in (Status.SUCCEEDED, Status.FAILED):
        raise BackfillError(f"backfill {backfill.id} cannot be cancelled: it has finished ({backfill.status.value})")
    if backfill.cancelled is not None and (backfill.cancelled.runs or not runs or not backfill.active):
        return []
    return [BackfillCancelled(**_next(backfill, by, at), reason=reason, runs=runs)]


def retry(backfill: Backfill, by: str, at: float, reason: str = "") -> list[BackfillFact]:
    """Return the fact that items which did not succeed run once more.

    Raises:
        BackfillError: it does not exist, was cancelled, or all items that ended have succeeded.
    """
    backfill.require()
    if backfill.cancelled is not None:
        raise BackfillError(f"backfill {backfill.id} was cancelled: start another one, with --failed or --missing")
    if not backfill.failed:
        raise BackfillError(f"backfill {backfill.id} has no failed items to retry")
    return [BackfillRetried(**_next(backfill, by, at), reason=reason)]


def _check_unfinished(backfill: Backfill, verb: str) -> None:
    backfill.require()
    if backfill.cancelled is not None:
        raise BackfillError(f"backfill {backfill.id} cannot be {verb}: it was cancelled")
    if backfill.status in FINISHED:
        raise BackfillError(f"backfill {backfill.id} cannot be {verb}: it has finished ({backfill.status.value})")


def _next(backfill: Backfill, by: str, at: float) -> dict[str, Any]:
    """The fields that all facts have, for the next number."""
    return {"project": backfill.project, "backfill": backfill.id, "number": backfill.number + 1, "by": by, "at": at}
