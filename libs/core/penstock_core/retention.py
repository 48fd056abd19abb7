"""Which runs to delete, and which to move from the log to the archive: pure functions of what is known of all runs.

In: a record of each run, the policies, the time, and protected runs. Out: a decision for each run, with its reason.

Rules:
- A run is deleted if at least one policy matches it and no matching policy retains it.
- Active runs stay, and so does what a retained run needs: the run whose results it reuses, the runs that its steps
  started.
- Protected runs, such as those behind an alias of a model, stay whatever the policies say.

So retaining more (a longer time, a larger number, another policy or protection) never deletes more runs.
"""

from __future__ import annotations

import fnmatch
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from penstock_core import ids
from penstock_core.errors import PenstockError

STATES = ("succeeded", "failed", "cancelled", "skipped")
"""The terminal states of a run."""

ARCHIVE_AFTER = 14 * 86400.0
"""Seconds after the end of a run until it is archived, by default: half of the retention of the steps' output."""

_LONGEST = 1e10
_MOST = 10_000_000


class InvalidPolicyError(PenstockError, ValueError):
    """A policy is invalid. `field` is the part that is wrong."""

    user_fault: ClassVar[bool] = True

    def __init__(self, field: str, why: str) -> None:
        self.field = field
        super().__init__(f"{field}: {why}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What retention needs to know of a run. Times are Unix seconds.

    Attributes:
        state: its terminal state; empty while it is active.
        reuses: the run whose results it reuses, if any.
        caller: the run whose step started it, if any.
        archived: whether its facts are in the artifact store.
    """

    run_id: str
    project: str = "default"
    pipeline: str
    requested_at: float = 0.0
    finished_at: float = 0.0
    state: str = ""
    reuses: str = ""
    caller: str = ""
    archived: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Which runs a policy matches, and how long to keep them. A run is kept if any of the rules keeps it.

    Attributes:
        name: the name of the policy.
        project: pattern of the project, with `*` and `?`.
        pipeline: pattern of the pipeline.
        states: terminal states of matching runs; empty for all.
        keep_for: seconds after the end of a run to keep it; None: no rule by age.
        keep_last: how many of the latest runs of each pipeline to keep; None: no rule by number.
        forever: keep all.
    """

    name: str
    project: str = "*"
    pipeline: str = "*"
    states: tuple[str, ...] = ()
    keep_for: float | None = None
    keep_last: int | None = None
    forever: bool = False

    def __post_init__(self) -> None:
        try:
            ids.check_name(self.name, "policy")
        except PenstockError as error:
            raise InvalidPolicyError("name", str(error)) from error
        for what in ("project", "pipeline"):
            pattern = getattr(self, what)
            if not 0 < len(pattern) <= 100:
                raise InvalidPolicyError(what, "write a name, or a pattern with * and ? of up to 100 characters")
        for state in self.states:
            if state not in STATES:
                known = ", ".join(STATES)
                raise InvalidPolicyError("states", f"{state[:50]!r} is not a terminal state of a run: {known}")
        if self.keep_for is not None and not 0 <= self.keep_for <= _LONGEST:
            raise InvalidPolicyError("keep_for", f"{self.keep_for:g} seconds: it must be 0 or more")
        if self.keep_last is not None and not 0 <= self.keep_last <= _MOST:
            raise InvalidPolicyError("keep_last", f"{self.keep_last} runs: it must be 0 or more")
        if self.forever and (self.keep_for is not None or self.keep_last is not None):
            raise InvalidPolicyError(
                "forever", "a policy that keeps runs forever cannot have an age or a number of runs"
            )
        if not self.forever and self.keep_for is None and self.keep_last is None:
            raise InvalidPolicyError("keep_for", "set how long to keep runs, how many, or forever")

    def about(self, run: RunRecord) -> bool:
        """Whether it matches a finished run."""
        return (
            (not self.states or run.state in self.states)
            and fnmatch.fnmatchcase(run.pipeline, self.pipeline)
            and fnmatch.fnmatchcase(run.project, self.project)
        )


class Decision(NamedTuple):
    """What happens to a run, and why."""

    run_id: str
    goes: bool
    reason: str


@dataclass(slots=True)
class _Words:
    """What the policies say about one run: the first one that keeps it, and those that do not."""

    keeps: str = ""
    exceeded: list[str] = field(default_factory=list[str])


def decide(
    runs: Sequence[RunRecord], policies: Iterable[Policy], now: float, protected: Mapping[str, str] | None = None
) -> dict[str, Decision]:
    """Decide about each run; returns the decisions by run id.

    Args:
        runs: all known runs; other runs are not considered.
        policies: the retention policies.
        now: Unix seconds.
        protected: runs that stay whatever the policies say, with the reason.
    """
    protected = protected or {}
    said: dict[str, _Words] = defaultdict(_Words)
    for policy in policies:
        _ask(policy, runs, now, said)
    found: dict[str, Decision] = {}
    for run in runs:
        words = said.get(run.run_id)
        if not run.state:
            keep = "it is active"
        elif run.run_id in protected:
            keep = protected[run.run_id]
        elif words is None:
            keep = "no policy matches it"
        else:
            keep = words.keeps
        reason = keep or f"it is older than {_listed(words.exceeded if words else [])} keeps"
        found[run.run_id] = Decision(run.run_id, not keep, reason)
    _keep_what_is_needed(runs, found)
    return found


def _ask(policy: Policy, runs: Sequence[RunRecord], now: float, said: dict[str, _Words]) -> None:
    latest: dict[tuple[str, str], list[RunRecord]] = defaultdict(list)
    about = [run for run in runs if run.state and policy.about(run)]
    if policy.keep_last:
        for run in about:
            latest[run.project, run.pipeline].append(run)
    counted = {
        run.run_id
        for group in latest.values()
        for run in sorted(group, key=_age, reverse=True)[: policy.keep_last or 0]
    }
    for run in about:
        words = said[run.run_id]
        if policy.forever:
            words.keeps = words.keeps or f"policy {policy.name!r} keeps it forever"
        elif policy.keep_for is not None and run.finished_at + policy.keep_for > now:
            words.keeps = words.keeps or f"policy {policy.name!r} keeps runs for {duration(policy.keep_for)}"
        elif run.run_id in counted:
            words.keeps = words.keeps or f"policy {policy.name!r} keeps the latest {policy.keep_last}"
        else:
            words.exceeded.append(policy.name)


def _age(run: RunRecord) -> tuple[float, str]:
    return run.requested_at, run.run_id


def needs(runs: Iterable[RunRecord]) -> dict[str, list[str]]:
    """Return, by run, the runs whose results its log refers to."""
    found: dict[str, list[str]] = defaultdict(list)
    for run in runs:
        if run.reuses:
            found[run.run_id].append(run.reuses)
        if run.caller:
            found[run.caller].append(run.run_id)
    return found


def _keep_what_is_needed(runs: Sequence[RunRecord], found: dict[str, Decision]) -> None:
    needed = needs(runs)
    left = [run_id for run_id, decision in found.items() if not decision.goes]
    while left:
        run_id = left.pop()
        for other in needed.get(run_id, ()):
            if other in found and found[other].goes:
                found[other] = Decision(other, False, f"run {run_id}, which is kept, needs its results")
                left.append(other)


def to_archive(runs: Sequence[RunRecord], after: float, now: float) -> list[RunRecord]:
    """Return the runs to archive, those that finished first first.

    Active runs, and runs that an active run needs or belongs to, are not archived.
    """
    needed = needs(runs)
    callers = {run.run_id: run.caller for run in runs}
    busy = [run.run_id for run in runs if not run.state]
    kept: set[str] = set()
    while busy:
        run_id = busy.pop()
        if run_id not in kept:
            kept.add(run_id)
            busy += needed.get(run_id, ())
            busy += [caller] if (caller := callers.get(run_id)) else []
    found = [
        run
        for run in runs
        if run.state and not run.archived and run.run_id not in kept and run.finished_at + after <= now
    ]
    return sorted(found, key=lambda run: (run.finished_at, run.run_id))


def deletes_all_finished(runs: Sequence[RunRecord], decisions: Mapping[str, Decision]) -> bool:
    """Whether all finished runs would be deleted."""
    over = [run for run in runs if run.state]
    return bool(over) and all(decisions[run.run_id].goes for run in over)


def duration(seconds: float) -> str:
    """Format seconds: `90 d`, `12 h`, `5 min`, `3 s`."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size and math.isclose(seconds / size, round(seconds / size, 1), rel_tol=1e-3):
            return f"{seconds / size:.3g} {unit}" if seconds / size < 1000 else f"{seconds / size:.0f} {unit}"
    return f"{seconds:g} s"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"{name!r}" for name in names[:5]) + (" …" if len(names) > 5 else "")
    return f"polic{'y' if len(names) == 1 else 'ies'} {shown}"
