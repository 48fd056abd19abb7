"""A run as the API shows it: its steps, and of mapped steps their items, as far as they fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import orjson

from penstock_core.run.machine import SUCCESSFUL_STATUSES, MappedState, Status, StepState
from penstock_gateway.http.problems import ProblemError
from penstock_gateway.runs.run_states import FoldedRun
from penstock_gateway.waits import wait_views

SHOWN = 1_000
"""Items of one mapped step that the view of a run holds; of more, those that are not over or ended badly come first."""


def view(folded: FoldedRun) -> bytes:
    """The JSON of `api.RunView`; made once for each state."""
    if not folded.view:
        state, request = folded.state, folded.requested
        folded.view = orjson.dumps(
            {
                "run_id": request.run_id,
                "project": request.project,
                "pipeline": request.pipeline,
                "version": request.version,
                "state": folded.name,
                "requested_at": folded.requested_at,
                "finished_at": folded.finished_at,
                "labels": request.labels,
                "trigger": request.trigger,
                "requested_by": request.requested_by,
                "error": state.finished.error if state.finished else None,
                "inputs": request.inputs,
                "outputs": outputs(folded),
                "steps": {step.key: _step(folded, step) for step in _shown(folded)},
                "last_seq": folded.last_seq,
            }
        )
    return folded.view


def outputs(folded: FoldedRun) -> dict[str, Any]:
    """The outputs of a run."""
    ended = folded.state.finished
    return {} if ended is None else ended.outputs if folded.outputs is None else folded.outputs


def page(folded: FoldedRun, key: str, state: str | None, after: int, limit: int) -> dict[str, Any]:
    """The fields of `api.ItemPage`: items of a mapped step above an index, in order.

    Raises:
        ProblemError: 404 there is no such step; 422 it has no items.
    """
    step = folded.state.steps.get(key)
    if step is None:
        raise ProblemError(404, f"The run has no step {key!r}", "see the steps of the run")
    if folded.state.plan.nodes[key].mapped is None:
        raise ProblemError(422, f"Step {key!r} is not mapped", "only mapped steps have items")
    items = sorted(step.mapped.items.items()) if step.mapped is not None else []
    found = [item for index, item in items if index > after and (state is None or item.status == state)]
    more = len(found) > limit
    return {
        "items": {item.key: _step(folded, item) for item in found[:limit]},
        "next": found[limit - 1].index if more else None,
    }


def _shown(folded: FoldedRun) -> Iterator[StepState]:
    for step in folded.state.steps.values():
        yield step
        if step.mapped is not None:
            yield from _some(step.mapped)


def _some(mapped: MappedState) -> list[StepState]:
    items = [mapped.items[index] for index in sorted(mapped.items)]
    if len(items) <= SHOWN:
        return items
    telling = [item for item in items if item.status not in SUCCESSFUL_STATUSES][:SHOWN]
    rest = [item for item in items if item.status in SUCCESSFUL_STATUSES][: SHOWN - len(telling)]
    return sorted([*telling, *rest], key=lambda item: item.index or 0)


def _counts(mapped: MappedState) -> dict[str, int]:
    """How many items there are, and how many of those that were begun stand where."""
    known = Counter(item.status for item in mapped.items.values())
    if mapped.source:
        known[Status.CACHED] = mapped.count
    return {"count": mapped.count, **{status.value: number for status, number in known.items() if number}}


def _step(folded: FoldedRun, step: StepState) -> dict[str, Any]:
    state, details, error = folded.state, folded.details, step.error
    return {
        "state": step.status.value,
        "attempts": step.attempt,
        "started_at": step.started_at or None,
        "finished_at": step.finished_at or None,
        "metrics": step.metrics,
        "params": step.params,
        "tags": step.tags,
        "reason": step.reason,
        "error": {"type": error.type, "message": error.message, "traceback": error.traceback} if error else None,
        "executor": step.executor or None,
        "outputs": step.outputs,
        "artifacts": {**details.artifacts.get(step.key, {}), **step.artifacts},
        "checkpoint": details.checkpoint(step.key),
        "cache": step.cache,
        "waits_for": wait_views.view(step),
        "from_run": step.from_run or None,
        "depends_on": state.plan.dependencies[step.node],
        "items": _counts(step.mapped) if step.mapped is not None else None,
        "item_of": step.node if step.index is not None else None,
    }
