"""The inputs of a step or item, to be shown: those that its attempts get, as far as they are known."""

from __future__ import annotations

from penstock_core.pipeline.values import Value
from penstock_core.run import mapped_steps, value_resolution
from penstock_core.run.state import SUCCESSFUL_STATUSES, RunState, StepState
from penstock_core.run.value_resolution import UnresolvableBindingError


def step_inputs(state: RunState, step: StepState) -> dict[str, Value]:
    """Return the inputs of a step or item by name; large ones are references.

    Of a step that has not started, those are omitted whose sources have no result. The inputs of a mapped step are the
    lists that it is mapped over, and those that all items share.
    """
    node = state.plan.nodes[step.node]
    started = step.attempt > 0 or step.status in SUCCESSFUL_STATUSES
    try:
        if step.index is not None:
            return mapped_steps.Inputs(state, node).of(step.index)
        if step.suspended is not None:
            return step.suspended.inputs
        known = {name: one for name, one in node.inputs.items() if started or value_resolution.has_result(state, one)}
        return value_resolution.inputs(state, known)
    except UnresolvableBindingError:
        return {}


class ItemInputs:
    """The inputs that differ between the items of a mapped step.

    Args:
        state: of the run.
        key: key of the mapped step.
    """

    def __init__(self, state: RunState, key: str) -> None:
        self._inputs = mapped_steps.Inputs(state, state.plan.nodes[key])

    def of(self, index: int) -> dict[str, Value]:
        """Return those of an item by name; large ones are references."""
        try:
            return self._inputs.elements(index)
        except UnresolvableBindingError:
            return {}
