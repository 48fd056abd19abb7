"""A run as the API shows it: its steps, and the items of mapped steps up to a limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from itertools import islice
from operator import attrgetter
from typing import Any

from penstock_contracts.api import (
    FailedItem,
    ItemPage,
    ItemView,
    ProgressView,
    RunSummary,
    RunView,
    StepError,
    StepView,
)
from penstock_core.pipeline.values import Value
from penstock_core.run.machine import SUCCESSFUL_STATUSES, MappedState, Status, StepState
from penstock_core.run.step_inputs import ItemInputs
from penstock_gateway.errors import UnprocessableError
from penstock_gateway.http.responses import to_json
from penstock_gateway.runs import wait_views
from penstock_gateway.runs.run_states import FoldedRun
from penstock_gateway.runs.steps import no_step

SHOWN = 1_000
"""Most items of one mapped step in the view of a run; unfinished and unsuccessful ones come first."""


def view(folded: FoldedRun) -> bytes:
    """Return the JSON of a run; made once for each state."""
    if not folded.view:
        folded.view = to_json(_run(folded))
    return folded.view


def _run(folded: FoldedRun) -> RunView:
    return RunView(
        **dict(summary(folded)),
        inputs=folded.requested.inputs,
        input_models=folded.requested.models,
        outputs=outputs(folded),
        models=folded.models,
        steps={step.key: step_view(folded, step) for step in _shown(folded)},
        last_seq=folded.last_seq,
    )


def summary(folded: FoldedRun) -> RunSummary:
    """Return a run without its steps."""
    request, finished = folded.requested, folded.state.finished
    return RunSummary(
        run_id=request.run_id,
        project=request.project,
        pipeline=request.pipeline,
        version=request.version,
        state=folded.name,
        created_at=folded.requested_at,
        started_at=folded.started_at,
        finished_at=folded.finished_at,
        duration=None if folded.finished_at is None else max(0.0, folded.finished_at - folded.requested_at),
        labels=request.labels,
        trigger=request.trigger,
        deployment=request.trigger.get("deployment"),
        requested_by=request.requested_by,
        error=finished.error if finished else None,
    )


def outputs(folded: FoldedRun) -> dict[str, Value]:
    """Return the outputs of a run."""
    ended = folded.state.finished
    return {} if ended is None else ended.outputs if folded.outputs is None else folded.outputs


def page(folded: FoldedRun, key: str, state: str | None, after: int, limit: int) -> ItemPage:
    """Return items of a mapped step above an index, in order.

    Raises:
        NotFoundError: the step does not exist.
        UnprocessableError: it is not mapped.
    """
    step = folded.state.steps.get(key)
    if step is None:
        raise no_step(folded, key)
    if folded.state.plan.nodes[key].mapped is None:
        raise UnprocessableError(f"Step {key!r} is not mapped", "only mapped steps have items")
    items = sorted(step.mapped.items.items()) if step.mapped is not None else []
    found = [item for index, item in items if index > after and (state is None or item.status == state)]
    more = len(found) > limit
    inputs = ItemInputs(folded.state, key)
    return ItemPage(
        items={
            item.key: ItemView(**vars_of(step_view(folded, item)), inputs=inputs.of(item.index or 0))
            for item in found[:limit]
        },
        next=found[limit - 1].index if more else None,
    )


def vars_of(view: StepView) -> dict[str, Any]:
    """Return the fields of a view, for one that has more."""
    return {one.name: getattr(view, one.name) for one in fields(StepView)}


def _shown(folded: FoldedRun) -> Iterator[StepState]:
    for step in folded.state.steps.values():
        yield step
        if step.mapped is not None:
            yield from _some(step.mapped)


def _some(mapped: MappedState) -> list[StepState]:
    if len(mapped.items) <= SHOWN:
        return [mapped.items[index] for index in sorted(mapped.items)]
    in_order = sorted(mapped.items)
    bad = (mapped.items[index] for index in in_order if mapped.items[index].status not in SUCCESSFUL_STATUSES)
    notable = list(islice(bad, SHOWN))
    good = (mapped.items[index] for index in in_order if mapped.items[index].status in SUCCESSFUL_STATUSES)
    return sorted([*notable, *islice(good, SHOWN - len(notable))], key=lambda item: item.index or 0)


def _counts(mapped: MappedState) -> dict[str, int]:
    """Return the number of items, how many have finished, and how many of the started ones are in which state."""
    known = Counter(map(attrgetter("status"), mapped.items.values()))
    if mapped.source:
        known[Status.CACHED] = mapped.count
    return {
        "count": mapped.count,
        "finished": mapped.done,
        **{status.value: number for status, number in known.items() if number},
    }


def _last_failed(folded: FoldedRun, step: StepState) -> FailedItem | None:
    key = folded.details.last_failed.get(step.key)
    item = folded.state.find(key) if key is not None else None
    if item is None or item.error is None:
        return None
    return FailedItem(key=item.key, type=item.error.type, message=item.error.message)


def _progress(folded: FoldedRun, step: StepState) -> ProgressView | None:
    """Return what the present attempt of a step without a result reported last."""
    report = folded.progress.get(step.key)
    if report is None or report.attempt != step.attempt or step.status in SUCCESSFUL_STATUSES:
        return None
    return ProgressView(done=report.done, total=report.total, text=report.text, at=report.at)


def step_view(folded: FoldedRun, step: StepState) -> StepView:
    """Return a step or item in its present state."""
    state, details, error = folded.state, folded.details, step.error
    return StepView(
        state=step.status.value,
        attempts=step.attempt,
        started_at=step.started_at or None,
        finished_at=step.finished_at or None,
        metrics=step.metrics,
        non_finite=step.non_finite,
        params=step.params,
        tags=step.tags,
        reason=step.reason,
        error=StepError(type=error.type, message=error.message, traceback=error.traceback) if error else None,
        executor=step.executor or None,
        outputs=step.outputs,
        artifacts={**details.artifacts.get(step.key, {}), **step.artifacts},
        checkpoint=details.checkpoint(step.key),
        cache=step.cache,
        waits_for=wait_views.view(step),
        from_run=step.from_run or None,
        depends_on=list(state.plan.dependencies[step.node]),
        items=_counts(step.mapped) if step.mapped is not None else None,
        last_failed=_last_failed(folded, step),
        progress=_progress(folded, step),
        item_of=step.node if step.index is not None else None,
    )
