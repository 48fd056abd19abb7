"""The outcome of a run, or of its main phase, and the error to be shown."""

from __future__ import annotations

from penstock_core.facts import Outcome
from penstock_core.run.state import RunState, Status, StepState


def run_outcome_and_reason(state: RunState) -> tuple[Outcome, str | None]:
    """Return outcome and error of a run whose steps have finished, or of its main phase once that has."""
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
        # No step failed and nobody stopped the run, but a step that should have a result has none.
        if step is not None:
            return outcome, f"step {step.key!r} was {step.status}: {step.reason}"
    return Outcome.SUCCEEDED, None
