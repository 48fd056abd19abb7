"""Who owns an attempt, and what an executor does with an attempt that may be another's. Pure.

An executor holds a **lease**: an entry with its name that it renews, and whose first revision is the lease's fencing
number. `AttemptStarted` names the owner of an attempt, by executor and fencing number; the log accepts the first one.

- An attempt with slots of limits has a process only after its owner is in the log, while the owner's lease is valid: a
  fork server kills such a process at the lease's deadline, whatever has become of the executor. So when the lease has
  ended, no process is left, and the slots can be granted again.
- An attempt without limits may start before its owner is in the log. If another executor turns out to own it, its
  process is killed.

A message that comes again is judged by the log and by what its owner answers; a living owner is asked first.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from penstock_core.facts import AttemptFinished, AttemptStarted, Fact


class OwnerStatus(StrEnum):
    """What is known of an executor and an attempt.

    `ACTIVE`: it answers that it has the attempt. `GONE`: it answers that it has not, or its lease has ended. `SILENT`:
    it does not answer, but its lease may be valid.
    """

    ACTIVE = "active"
    GONE = "gone"
    SILENT = "silent"


class Action(StrEnum):
    """What to do with an attempt that may be another executor's.

    `RUN`: own it, then start it. `DONE`: acknowledge it. `STOPPED`: record that no process of it is left, then
    acknowledge it. `LOST`: record that its owner is gone. `WAIT`: have it delivered again later.
    """

    RUN = "run"
    DONE = "done"
    STOPPED = "stopped"
    LOST = "lost"
    WAIT = "wait"


def is_stopped(started: Fact | None, finished: Fact | None, stopped: Fact | None, *, certain: bool = False) -> bool:
    """Whether no process of a finished attempt can be left, by the facts on these subjects of the log.

    That no executor owns it counts only if the facts are `certain` to be the latest.
    """
    if stopped is not None or (isinstance(finished, AttemptFinished) and finished.executor != ""):
        return True
    return certain and started is None


def awaits_stop(*, limited: bool, finished: AttemptFinished, stopped: bool) -> bool:
    """Whether the slots of a finished attempt may still be held for its process: its owner did not record its end."""
    return limited and not finished.executor and not stopped


def judge(
    *,
    limited: bool,
    started: AttemptStarted | None,
    finished: AttemptFinished | None,
    stopped: bool,
    statuses: Iterable[OwnerStatus],
) -> Action:
    """Return what to do with an attempt that may be another executor's.

    Args:
        limited: whether it has slots of limits.
        started: the fact that names its owner.
        finished: its end.
        stopped: whether the log says that no process is left.
        statuses: of its owner; of all other executors if the log names none.
    """
    if finished is not None:
        if started is None or not awaits_stop(limited=limited, finished=finished, stopped=stopped):
            return Action.DONE
        gone = Action.STOPPED
    else:
        gone = Action.RUN if started is None else Action.LOST
    return gone if all(status is OwnerStatus.GONE for status in statuses) else Action.WAIT
