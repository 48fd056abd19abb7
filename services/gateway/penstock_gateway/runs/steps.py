"""Steps of runs, found by key."""

from __future__ import annotations

from typing import NamedTuple

from penstock_core import ids
from penstock_core.errors import InvalidIdError
from penstock_core.run.machine import StepState
from penstock_core.run.state import item_of
from penstock_gateway.errors import NotFoundError
from penstock_gateway.runs.run_reader import RunReader
from penstock_gateway.runs.run_states import FoldedRun

_NAMES_SHOWN = 20


class RunStep(NamedTuple):
    """A run, and a step or an item of it. `step` is None for an item that has not been started."""

    run: FoldedRun
    step: StepState | None


async def find_step(reader: RunReader, run_id: str, key: str) -> RunStep:
    """Return a step or an item of a run.

    Raises:
        NotFoundError: the run, the step or the item does not exist.
    """
    run = await reader.get(run_id)
    try:
        step = run.state.find(ids.check_step_key(key))
    except InvalidIdError as error:
        raise no_step(run, key) from error
    if step is None:
        name, index = item_of(key)
        owner = run.state.steps.get(name)
        mapped = owner is not None and run.state.plan.nodes[name].mapped is not None
        if owner is None or not mapped or (owner.mapped is not None and index >= owner.mapped.count):
            raise no_step(run, key)
    return RunStep(run, step)


def no_step(run: FoldedRun, key: str) -> NotFoundError:
    """Return the error of a step that does not exist."""
    keys = list(run.state.steps)
    shown = ", ".join(keys[:_NAMES_SHOWN]) + (" …" if len(keys) > _NAMES_SHOWN else "")
    return NotFoundError(f"Run {run.requested.run_id} has no step {key[:200]!r}", f"its steps: {shown or 'none'}")
