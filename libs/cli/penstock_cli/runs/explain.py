"""`penstock runs explain`: why each step of a run is in its state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock_cli.arguments import Json, RunArgument, resolve_run
from penstock_cli.display import output
from penstock_cli.errors import UsageError

if TYPE_CHECKING:
    from penstock.client.views import Reasons, StepReason

_SHOWN = 30
_CHAIN = 20
# The order in which steps are shown if not all fit the screen.
_FIRST = (
    *("failed", "suspended", "queued_for_limit", "running", "retrying", "queued"),
    *("cancelled", "skipped", "waiting", "cached", "succeeded"),
)


def explain(
    name: RunArgument,
    step: Annotated[
        str | None,
        typer.Argument(metavar="[STEP]", help="Only this step or item (its key), and the steps that are the reason."),
    ] = None,
    json: Json = False,
) -> None:
    """Explain the state of each step.

    The reason is an upstream step, a queue, a retry delay, an error or a condition.
    """
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    with session.connect() as connected:
        run_id = resolve_run(connected.client, name)
        item = step is not None and step.endswith("]")
        found = connected.client.runs.explain(run_id, step if item else None)
    chosen = list(found.steps.values()) if step is None else chain(found, step)
    if json:
        output.as_json(_object(found, chosen))
        return
    chosen, left = fit_to_screen(chosen)
    about = f"  run {found.run_id}, at {output.clock(found.at)}"
    style = output.STYLES.get(found.state, "")
    output.show(
        [
            [
                (found.pipeline, "bold"),
                (f" v{found.version} " if found.version else " ", ""),
                (found.state, style),
                (about, "dim"),
            ]
        ]
    )
    rows = [(one.key, one.state, output.clock(one.since), one.sentence) for one in chosen]
    output.table(["step", "state", "since", "reason"], rows, states="state")
    if left:
        counts = ", ".join(f"{count} {state}" for state, count in left.items())
        output.line(f"… and {left.total()} more steps: {counts}; show one with `penstock runs explain RUN STEP`")


def fit_to_screen(steps: Sequence[StepReason]) -> tuple[Sequence[StepReason], Counter[str]]:
    """Return the steps that fit a screen, the most interesting ones first, and the states of the others."""
    if len(steps) <= _SHOWN:
        return steps, Counter()
    order = sorted(steps, key=lambda one: _FIRST.index(one.state) if one.state in _FIRST else 0)
    return order[:_SHOWN], Counter(one.state for one in order[_SHOWN:])


def chain(found: Reasons, step: str) -> list[StepReason]:
    """Return a step, the steps that are its reason, their reasons and so on, nearest first.

    Raises:
        UsageError: the run has no such step.
    """
    if step not in found.steps:
        known = list(found.steps)
        more = " …" if len(known) > 20 else ""
        raise UsageError(f"run {found.run_id} has no step {step!r}; it has: {', '.join(known[:20])}{more}")
    keys = {step: None}
    for key in (queue := [step]):
        fresh = [other for other in found.steps[key].caused_by if other in found.steps and other not in keys]
        keys |= dict.fromkeys(fresh)
        queue += fresh
        if len(keys) > _CHAIN:
            break
    return [found.steps[key] for key in list(keys)[:_CHAIN]]


def _object(found: Reasons, steps: Sequence[StepReason]) -> dict[str, Any]:
    names = ("run_id", "pipeline", "version", "state", "at")
    return {name: getattr(found, name) for name in names} | {
        "steps": {
            one.key: {
                "state": one.state,
                "sentence": one.sentence,
                "caused_by": list(one.caused_by),
                "since": one.since,
            }
            for one in steps
        }
    }
