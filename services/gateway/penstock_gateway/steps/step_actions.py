"""Steps of runs that somebody ends: found by key, and cancelled one at a time."""

from __future__ import annotations

import time
from typing import NamedTuple

from penstock_contracts import api
from penstock_core import ids
from penstock_core.errors import InvalidIdError
from penstock_core.facts import StepCancelRequested
from penstock_core.run.machine import TERMINAL_STATUSES, StepState
from penstock_core.run.state import item_of
from penstock_gateway.http.problems import ProblemError
from penstock_gateway.runs.run_states import FoldedRun
from penstock_gateway.service import GatewayService

_NAMES_SHOWN = 20


class RunStep(NamedTuple):
    """A run, and a step or an item of it. `step` is None for an item whose turn has not come."""

    run: FoldedRun
    step: StepState | None


async def find(service: GatewayService, run_id: str, key: str) -> RunStep:
    """A step or an item of a run.

    Raises:
        ProblemError: 404 there is no such run, step or item.
    """
    run = await service.folded(run_id)
    step = run.state.find(_checked(run, key))
    if step is None:
        name, index = item_of(key)
        owner = run.state.steps.get(name)
        mapped = owner is not None and run.state.plan.nodes[name].mapped is not None
        if owner is None or not mapped or (owner.mapped is not None and index >= owner.mapped.count):
            raise _no_step(run, key)
    return RunStep(run, step)


async def cancel(service: GatewayService, run_id: str, key: str, body: api.CancelBody) -> StepState | None:
    """Ask to cancel a step, or an item. Returns it where it was over before, so that nothing was asked.

    Raises:
        ProblemError: 404 there is no such run, step or item.
    """
    run, step = await find(service, run_id, key)
    owner = step or run.state.steps[item_of(key)[0]]
    if owner.status in TERMINAL_STATUSES:
        return owner
    fact = StepCancelRequested(run_id=run_id, key=key, by=body.by, reason=body.reason, requested_at=time.time())
    await service.runs.append([fact])
    return None


def _checked(run: FoldedRun, key: str) -> str:
    try:
        return ids.check_step_key(key)
    except InvalidIdError as error:
        raise _no_step(run, key) from error


def _no_step(run: FoldedRun, key: str) -> ProblemError:
    keys = list(run.state.steps)
    shown = ", ".join(keys[:_NAMES_SHOWN]) + (" …" if len(keys) > _NAMES_SHOWN else "")
    return ProblemError(404, f"Run {run.requested.run_id} has no step {key[:200]!r}", f"it has: {shown or 'none'}")
