"""Whether another attempt follows an unsuccessful one: a function of the retry policy, the history and the error."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from penstock_core import exhaustion, ids
from penstock_core.facts import ErrorInfo, Outcome
from penstock_core.pipeline.ir import Retry

MAX_LOSSES = 20
"""How many attempts of a step may be lost to the infrastructure before the step fails."""

_LOSS_DELAY = 0.0
_LONGEST_SHORTAGE = 60.0

_PYTHON_NAMES = {"Timeout": ("TimeoutError", "OSError", "Exception", "BaseException")}
"""Python's classes of errors that no exception of the step reports: `retry_on=TimeoutError` matches its time-out."""

ENVIRONMENT_MISSING = "EnvironmentMissing"
"""Type of the error of an attempt for which no executor had the environment. Another attempt would meet the same."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether another attempt follows (`again`), after `delay` seconds, and why."""

    again: bool
    delay: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The ends of a step's attempts so far, including the present one. Losses are not failures of the user's code."""

    run_id: str
    key: str
    attempt: int
    failures: int
    losses: int


def decide(policy: Retry, history: History, outcome: Outcome, error: ErrorInfo | None) -> Decision:
    """Decide whether another attempt follows an end with this outcome."""
    if outcome is Outcome.LOST:
        if history.losses > MAX_LOSSES:
            return Decision(again=False, reason=f"lost {history.losses} times; the limit is {MAX_LOSSES}")
        short = error is not None and error.type == exhaustion.OUT_OF_RESOURCES
        wait = min(2.0**history.losses, _LONGEST_SHORTAGE) if short else _LOSS_DELAY
        return Decision(again=True, delay=wait, reason="lost to the infrastructure")
    if outcome is Outcome.CANCELLED:
        return Decision(again=False, reason="cancelled")
    if error is not None and error.type == ENVIRONMENT_MISSING:
        return Decision(again=False, reason="not retried: no executor has the environment")
    if history.failures > policy.retries:
        return Decision(again=False, reason=f"failed, retries used: {history.failures - 1} of {policy.retries}")
    if policy.on and not _matches(policy.on, error):
        return Decision(again=False, reason=f"not retried: only {', '.join(policy.on)} are retried")
    return Decision(again=True, delay=delay(policy, history), reason=f"retry {history.failures} of {policy.retries}")


def remaining_delay(not_before: float, requested_at: float, now: float, deliveries: int) -> float:
    """Return the seconds until a requested attempt may start.

    A clock that was set back after the request shows a time before it. The time that has passed is unknown then: the
    attempt waits for its whole delay once, instead of until the clock has caught up.

    Args:
        not_before: Unix time of its earliest start.
        requested_at: Unix time at which the request was stored.
        now: Unix time.
        deliveries: how often the request has been delivered, with this time.
    """
    if now >= requested_at:
        return max(0.0, not_before - now)
    return max(0.0, not_before - requested_at) if deliveries == 1 else 0.0


def delay(policy: Retry, history: History) -> float:
    """Return the seconds before the next attempt: delay x backoff^(failures - 1), bounded, jitter by attempt id."""
    if policy.delay <= 0:
        return 0.0
    try:
        base = min(policy.delay * float(policy.backoff) ** max(history.failures - 1, 0), policy.max_delay)
    except OverflowError:
        base = policy.max_delay
    text = ids.attempt_id(history.run_id, history.key, history.attempt)
    spread = zlib.crc32(text.encode()) / 0xFFFFFFFF
    return base * (1.0 - policy.jitter * spread)


def _matches(names: tuple[str, ...], error: ErrorInfo | None) -> bool:
    if error is None:
        return False
    kinds = {error.type, *error.bases}
    return bool((kinds | {*_PYTHON_NAMES.get(error.type, ())}) & set(names))
