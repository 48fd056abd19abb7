"""When an attempt that ended badly is followed by another: a function of the step, its history and the error."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from penstock_core import ids
from penstock_core.facts import ErrorInfo, Outcome
from penstock_core.pipeline.ir import Retry

MAX_LOSSES = 20
"""Attempts of one step that may be lost to the infrastructure before the step fails."""

_LOSS_DELAY = 0.0

ENVIRONMENT_MISSING = "EnvironmentMissing"
"""Type of the error of an attempt for which no executor had the environment. Another attempt would meet the same."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows an end: `again` after `delay` seconds, or not, with the reason."""

    again: bool
    delay: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A step's ends so far, the present one included. Losses are not the user's failures and are counted apart."""

    run_id: str
    key: str
    attempt: int
    failures: int
    losses: int


def decide(policy: Retry, history: History, outcome: Outcome, error: ErrorInfo | None) -> Decision:
    """Say whether the step is tried again after an end of `outcome`."""
    if outcome is Outcome.LOST:
        if history.losses > MAX_LOSSES:
            return Decision(again=False, reason=f"lost {history.losses} times; the limit is {MAX_LOSSES}")
        return Decision(again=True, delay=_LOSS_DELAY, reason="lost to the infrastructure")
    if outcome is Outcome.CANCELLED:
        return Decision(again=False, reason="cancelled")
    if error is not None and error.type == ENVIRONMENT_MISSING:
        return Decision(again=False, reason="not retried: no executor has the environment")
    if history.failures > policy.retries:
        return Decision(again=False, reason=f"failed, retries used: {history.failures - 1} of {policy.retries}")
    if policy.on and not _matches(policy.on, error):
        return Decision(again=False, reason=f"not retried: only {', '.join(policy.on)} are")
    return Decision(again=True, delay=delay(policy, history), reason=f"retry {history.failures} of {policy.retries}")


def delay(policy: Retry, history: History) -> float:
    """Seconds before the next attempt: delay x backoff^(failures - 1), bounded, spread by the attempt's id."""
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
    return error is not None and bool({error.type, *error.bases} & set(names))
