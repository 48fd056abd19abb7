"""Run states as comparable plain data, and the state machine as a parameter, to test mutants."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from penstock_core.facts import Fact
from penstock_core.pipeline.ir import Pipeline
from penstock_core.run import machine
from penstock_core.run.machine import Plan, RunState, Status, StepState


@dataclass(frozen=True, slots=True)
class Machine:
    """The functions of a run state machine: `penstock_core.run.machine` or an altered copy."""

    plan: Callable[[Pipeline], Plan]
    new: Callable[[str, Plan], RunState]
    evolve: Callable[[RunState, Fact], RunState]
    decide: Callable[[RunState], list[Fact]]

    @classmethod
    def of(cls, module: ModuleType = machine) -> Machine:
        """Return the machine that `module` defines."""
        return cls(plan=module.Plan, new=module.RunState, evolve=module.evolve, decide=module.decide)

    def fold(self, run_id: str, plan: Plan, facts: Iterable[Fact]) -> RunState:
        """Return the state after `facts`."""
        state = self.new(run_id, plan)
        for fact in facts:
            state = self.evolve(state, fact)
        return state


def dump(state: RunState) -> dict[str, Any]:
    """Copy a state into plain data, except for the order of the frontier."""
    return {
        "run_id": state.run_id,
        "requested": state.requested,
        "admitted": state.admitted,
        "cancel": state.cancel,
        "stop": state.stop,
        "finished": state.finished,
        "first_failure": state.first_failure,
        "ending": state.ending,
        "open": state.open,
        "open_main": state.open_main,
        "frontier": sorted(state.frontier),
        "early": dict(state.early),
        "reused": {key: dict(items) for key, items in state.reused.items()},
        "stops": dict(state.stops),
        "now": state.now,
        "reached": state.reached,
        "alarms": dict(state.alarms),
        "outbox": set(state.outbox),
        "steps": {key: _step(step) for key, step in state.steps.items()},
    }


def _step(step: StepState) -> dict[str, Any]:
    found = {field.name: getattr(step, field.name) for field in dataclasses.fields(step)}
    if step.mapped is not None:
        mapped = {field.name: getattr(step.mapped, field.name) for field in dataclasses.fields(step.mapped)}
        found["mapped"] = {**mapped, "items": {item.key: _step(item) for item in step.mapped.items.values()}}
    return found


def differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return the entries in which two dumps differ, as pairs."""
    found: dict[str, Any] = {}
    for name in sorted(one.keys() | other.keys()):
        left, right = one.get(name), other.get(name)
        if isinstance(left, dict) and isinstance(right, dict):
            found |= {f"{name}.{k}": v for k, v in differences(left, right).items()}
        elif left != right:
            found[name] = (left, right)
    return found


def agreed(state: RunState, *, cancelled: bool = False) -> dict[str, Any]:
    """Return what all replicas must agree on once they have seen all facts delivered to schedulers.

    Left out is what may differ between replicas: the contents of `started` (not delivered to schedulers), in a
    `cancelled` run whether a step without a result counts as skipped or cancelled and its attempts, and
    whether the cancel is known in a finished run.
    """
    steps: dict[str, Any] = {}
    for owner in state.steps.values():
        for step in (owner, *(owner.mapped.items.values() if owner.mapped is not None else ())):
            view = _agreed(step, cancelled=cancelled)
            if (
                step.index is None or view != _NOT_RUN
            ):  # only the replica that fenced items knows those that never began
                steps[step.key] = view
    return {
        "requested": state.requested,
        "cancel": state.cancel if state.finished is None else None,
        "finished": state.finished,
        "open": state.open,
        "frontier": sorted(state.frontier),
        "steps": steps,
    }


_NOT_RUN = {"status": "not run"}


def _agreed(step: StepState, *, cancelled: bool) -> dict[str, Any]:
    status: str = Status.QUEUED if step.status == Status.RUNNING and step.mapped is None else step.status
    never = status == Status.FAILED and step.attempt == 0 and step.mapped is None
    if cancelled and (never or status in (Status.SKIPPED, Status.CANCELLED)):
        return _NOT_RUN
    return {
        "status": status,
        "outputs": step.outputs,
        "failures": step.failures,
        "losses": step.losses,
        "attempt": step.attempt,
        "error": step.error,
        "metrics": step.metrics,
        "finished_at": step.finished_at if step.mapped is None else None,
        "not_before": step.not_before,
        "reason": step.reason,
        "expected": step.expected,
        "count": step.mapped.count if step.mapped is not None else None,
    }
