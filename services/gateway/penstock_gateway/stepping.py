"""Steps of runs that somebody ends: found by key, and cancelled one at a time."""

from __future__ import annotations

import time
from typing import NamedTuple

from penstock_contracts import api
from penstock_core import ids
from penstock_core.errors import InvalidId
from penstock_core.facts import StepCancelRequested
from penstock_core.run import FINAL, StepState
from penstock_core.state import item_of
from penstock_gateway.problems import ProblemError
from penstock_gateway.service import GatewayService
from penstock_gateway.states import Folded

_NAMED = 20


class Found(NamedTuple):
    """A run, and a step or an item of it. `step` is None for an item whose turn has not come."""

    run: Folded
    step: StepState | None


async def find(service: GatewayService, run_id: str, key: str) -> Found:
    """A step or an item of a run.

    Raises:
        ProblemError: 404 there is no such run, step or item.
    """
    run = await service.folded(run_id)
    step = run.state.find(_checked(run, key))
    if step is None:
        name, index = item_of(key)
        owner = run.state.steps.get(name)
        mapped = owner is not None and run.state.plan.nodes[name].fan is not None
        if owner is None or not mapped or (owner.fan is not None and index >= owner.fan.count):
            raise _no_step(run, key)
    return Found(run, step)


async def cancel(service: GatewayService, run_id: str, key: str, body: api.CancelBody) -> StepState | None:
    """Ask to cancel a step, or an item. Returns it where it was over before, so that nothing was asked.

    Raises:
        ProblemError: 404 there is no such run, step or item.
    """
    run, step = await find(service, run_id, key)
    owner = step or run.state.steps[item_of(key)[0]]
    if owner.status in FINAL:
        return owner
    fact = StepCancelRequested(run_id=run_id, key=key, by=body.by, reason=body.reason, requested_at=time.time())
    await service.runs.append([fact])
    return None


def _checked(run: Folded, key: str) -> str:
    try:
        return ids.check_step_key(key)
    except InvalidId as error:
        raise _no_step(run, key) from error


def _no_step(run: Folded, key: str) -> ProblemError:
    keys = list(run.state.steps)
    shown = ", ".join(keys[:_NAMED]) + (" …" if len(keys) > _NAMED else "")
    return ProblemError(404, f"Run {run.requested.run_id} has no step {key[:200]!r}", f"it has: {shown or 'none'}")
