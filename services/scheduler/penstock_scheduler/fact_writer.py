"""Appends the decisions of all runs together. A fact that is refused for good affects only its own run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from penstock_adapters.nats.bus import BusError
from penstock_adapters.nats.run_log import FactTooLargeError
from penstock_core.errors import UnavailableError
from penstock_core.facts import (
    AttemptFinished,
    AttemptRequested,
    ErrorInfo,
    Fact,
    Outcome,
    RunFinished,
    StepSkipped,
    StepSuspended,
)
from penstock_core.ports import RunLog

Written = list[tuple[Fact, bool]]


async def append(log: RunLog, decided: Mapping[str, Sequence[Fact]]) -> tuple[Written, dict[str, Exception]]:
    """Append the facts of runs.

    Returns:
        The facts as they were appended, each with whether it was written or existed before; and by run the error of
        those whose facts may not have been written.
    """
    facts = [fact for several in decided.values() for fact in several]
    try:
        return list(zip(facts, await log.append(facts), strict=True)), {}
    except UnavailableError as error:
        return [], dict.fromkeys(decided, error)
    except BusError:
        # A fact is refused for good: append them one by one, so that only its run is affected.
        pass
    done: Written = []
    failed: dict[str, Exception] = {}
    for run_id, several in decided.items():
        try:
            done += [await _append_alone(log, fact) for fact in several]
        except (UnavailableError, BusError) as error:
            done = [entry for entry in done if entry[0].run_id != run_id]
            failed[run_id] = error
    return done, failed


async def _append_alone(log: RunLog, fact: Fact) -> tuple[Fact, bool]:
    """Append a fact. One that is too large is replaced by one that says so, so that its run can finish."""
    try:
        [written] = await log.append([fact])
    except FactTooLargeError as error:
        instead = _instead(fact, str(error))
        if instead is None:
            raise
        fact = instead
        [written] = await log.append([fact])
    return fact, written


def _instead(fact: Fact, why: str) -> Fact | None:
    """Return what to append instead of a fact that is too large for the log."""
    why = f"{why}: pass large values as files or artifacts"
    match fact:
        case AttemptRequested(attempt=1) | StepSuspended(attempt=1):
            return StepSkipped(run_id=fact.run_id, key=fact.key, reason=f"it cannot be requested: {why}")
        case AttemptRequested() | StepSuspended():
            error = ErrorInfo(type="RequestTooLarge", message=f"it cannot be requested again: {why}")
            return AttemptFinished(
                run_id=fact.run_id, key=fact.key, attempt=fact.attempt, outcome=Outcome.CANCELLED, error=error
            )
        case RunFinished():
            error = f"its outputs cannot be recorded: {why}"
            return RunFinished(run_id=fact.run_id, outcome=Outcome.FAILED, error=error)
        case _:
            return None
