"""The facts of dynamic partitions and of backfills, in the stream `PARTITIONS`.

A dynamic partition is one fact, whose subject derives from its key. A backfill is a log of numbered facts, each written
at most once, so that replicas cannot start an item twice.
"""

from __future__ import annotations

import enum
import hashlib
from dataclasses import field
from typing import Any, ClassVar, TypeAlias

from penstock_core import ids
from penstock_core.errors import InvalidFactError
from penstock_core.frozen import frozen

ACTIVE_LIMIT = 1_000
"""Largest number of runs of a backfill that are active at the same time."""

REASON_LIMIT = 4_000
"""Maximum length of a reason, in characters."""

ERROR_LIMIT = 1_000
"""Maximum length of the error of an item, in characters."""

_FACTS_LIMIT = 10_000_000


@frozen(kw_only=True)
class PartitionAdded:
    """A dynamic partition exists from now on."""

    ce_type: ClassVar[str] = "penstock.partition.added.v1"
    append_once: ClassVar[bool] = True

    project: str
    deployment: str
    key: str
    by: str = ""
    at: float = 0.0

    def __post_init__(self) -> None:
        ids.check_name(self.project, "project")
        ids.check_name(self.deployment, "deployment")

    @property
    def tail(self) -> str:
        """End of the subject, and the fact's identity."""
        digest = hashlib.sha256(self.key.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return f"{self.project}.{self.deployment}.{digest}"


class ItemOutcome(enum.StrEnum):
    """How the run of an item ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    """The pipeline had too many active runs, and its overlap policy skips others."""
    REJECTED = "rejected"
    """There is no run: the inputs do not fit the pipeline, or its version is gone."""
    DELETED = "deleted"
    """The run was deleted before its end was noticed."""


@frozen(kw_only=True)
class _Numbered:
    """The fields of all facts of a backfill: its id, the number of the fact, principal, time in Unix seconds."""

    append_once: ClassVar[bool] = True

    project: str
    backfill: str
    number: int
    by: str = ""
    at: float = 0.0

    def __post_init__(self) -> None:
        ids.check_name(self.project, "project")
        ids.check_name(self.backfill, "backfill")
        if not 1 <= self.number <= _FACTS_LIMIT:
            raise InvalidFactError(f"fact {self.number} of backfill {self.backfill!r} is out of range")

    @property
    def tail(self) -> str:
        """End of the subject, and the fact's identity."""
        return f"{self.project}.{self.backfill}.{self.number}"


@frozen(kw_only=True)
class BackfillStarted(_Numbered):
    """A backfill was started. Its items are partitions, or ticks of a cron trigger, by number.

    Attributes:
        deployment, revision: whose definition its runs use, whatever changes later.
        pipeline, version: what its runs execute.
        trigger: the cron trigger whose ticks are its items; empty: its items are partitions.
        since: of ticks: the Unix time that the numbers of ticks are counted from; the first tick after it is number 0.
        ranges: the numbers of its items: the first one of each range, and its length.
        max_active: how many of its runs are active at the same time.
        newest_first: whether the items with the highest numbers run first.
        inputs: JSON values by parameter, which override those of the deployment.
        request: fingerprint of the request, for one that is sent again.
    """

    ce_type: ClassVar[str] = "penstock.backfill.started.v1"

    deployment: str
    revision: int
    pipeline: str
    version: int
    trigger: str = ""
    since: float = 0.0
    ranges: tuple[tuple[int, int], ...]
    max_active: int
    newest_first: bool = False
    inputs: dict[str, Any] = field(default_factory=dict[str, Any])
    request: str = ""


@frozen(kw_only=True)
class BackfillAdvanced(_Numbered):
    """Runs of items ended, and further items start: their runs are requested because of this fact.

    `errors` are those of rejected items, by number.
    """

    ce_type: ClassVar[str] = "penstock.backfill.advanced.v1"

    ended: tuple[tuple[int, ItemOutcome], ...] = ()
    started: tuple[int, ...] = ()
    errors: tuple[tuple[int, str], ...] = ()


@frozen(kw_only=True)
class BackfillPaused(_Numbered):
    """No further items start until it is resumed; active runs continue."""

    ce_type: ClassVar[str] = "penstock.backfill.paused.v1"

    reason: str = ""


@frozen(kw_only=True)
class BackfillResumed(_Numbered):
    """Items start again."""

    ce_type: ClassVar[str] = "penstock.backfill.resumed.v1"

    reason: str = ""


@frozen(kw_only=True)
class BackfillCancelled(_Numbered):
    """No further items start. With `runs`, its active runs are cancelled, too."""

    ce_type: ClassVar[str] = "penstock.backfill.cancelled.v1"

    reason: str = ""
    runs: bool = False


@frozen(kw_only=True)
class BackfillRetried(_Numbered):
    """The items whose runs did not succeed run once more, each as a new run."""

    ce_type: ClassVar[str] = "penstock.backfill.retried.v1"

    reason: str = ""


BackfillFact: TypeAlias = (
    BackfillStarted | BackfillAdvanced | BackfillPaused | BackfillResumed | BackfillCancelled | BackfillRetried
)

BACKFILL_FACTS: tuple[type[BackfillFact], ...] = (
    BackfillStarted,
    BackfillAdvanced,
    BackfillPaused,
    BackfillResumed,
    BackfillCancelled,
    BackfillRetried,
)
