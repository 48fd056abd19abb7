"""How a run ended, as far as it is over: its outcome, and the reason for people."""

from __future__ import annotations

from penstock_core.facts import Outcome
from penstock_core.run.state import RunState, Status, StepState


def run_outcome_and_reason(state: RunState) -> tuple[Outcome, str | None]:
    """Outcome and error of a run whose steps are over, or of its run proper when only that is."""
    cancelled: StepState | None = None
    skipped: StepState | None = None
    for step in state.steps.values():
        if step.status is Status.CANCELLED:
            cancelled = cancelled or step
        elif step.status is Status.SKIPPED and not step.expected:
            skipped = skipped or step
    if state.stop is not None and (cancelled is not None or skipped is not None):
        return state.stop.outcome, state.stop.reason
    if state.first_failure is not None:
        error = state.steps[state.first_failure].error
        why = f": {error.type}: {error.message}" if error else ""
        return Outcome.FAILED, f"step {state.first_failure!r} failed{why}"[:2000]
    for outcome, step in ((Outcome.CANCELLED, cancelled), (Outcome.FAILED, skipped)):
        # Nobody stopped the run and no step failed, and yet there is a step without a result that should have one.
        if step is not None:
            return outcome, f"step {step.key!r} was {step.status}: {step.reason}"
    return Outcome.SUCCEEDED, None
