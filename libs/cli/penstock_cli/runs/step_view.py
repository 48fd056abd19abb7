"""One step of a run, or one item of a mapped step: inputs, attempts, results. Of a mapped step, its items."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from penstock_cli.display import output

if TYPE_CHECKING:
    from penstock.client.client import Client
    from penstock.client.views import Attempt, Item, Run, StepDetail
    from penstock.store import FolderStore
    from penstock_cli.display.output import Segments

_ITEMS_SHOWN = 40
_INPUT_WIDTH = 28


def show(client: Client, run_id: str, key: str, store: FolderStore | None, *, json: bool) -> None:
    """Print a step or item."""
    from penstock_cli.display import summary

    step = client.runs.step(run_id, key)
    mapped = step.items is not None
    if json:
        items = list(client.runs.items(run_id, key)) if mapped else []
        output.as_json(_object(step, items, store))
        return
    output.show([_header(step)])
    output.show(summary.inputs(step.inputs, step.input_models, store))
    if step.history:
        output.line()
        columns = ("attempt", "state", "queue", "load", "run", "save", "executor")
        output.table(columns, [_attempt(attempt) for attempt in step.history], states="state")
    if mapped:
        _show_items(_notable_items(client, run_id, key), step)
    one = _as_run(step)
    output.show(summary.failures(one))
    output.show(summary.results(one, store))


def _header(step: StepDetail) -> Segments:
    from penstock_cli.display.formats import duration, plural

    attempts = f" after {step.attempts} attempts" if step.attempts > 1 else ""
    took = f" in {duration(step.seconds)}" if step.seconds is not None else ""
    counts = step.items or {}
    items = f"  {counts.get('finished', 0)}/{plural(counts.get('count', 0), 'item')}" if counts else ""
    progress = f"  {step.progress}" if step.progress is not None else ""
    reason = f"  {step.reason}" if step.reason and step.error is None else ""
    return [
        (step.key, "bold"),
        (" ", ""),
        (step.state, output.STYLES.get(step.state, "")),
        (f"{attempts}{took}", ""),
        (f"{items}{progress}{reason}  run {step.run_id}", "dim"),
    ]


def _attempt(attempt: Attempt) -> list[str]:
    from penstock_cli.display.formats import duration

    parts = (attempt.queue_seconds, attempt.load_seconds, attempt.run_seconds, attempt.save_seconds)
    times = ["" if seconds is None else duration(seconds) for seconds in parts]
    return [str(attempt.number), attempt.state, *times, attempt.executor or ""]


def _notable_items(client: Client, run_id: str, key: str) -> list[Item]:
    """Return some items in order: failed ones first."""
    failed = list(islice(client.runs.items(run_id, key, state="failed"), _ITEMS_SHOWN))
    known = {item.key for item in failed}
    others = (item for item in client.runs.items(run_id, key) if item.key not in known)
    return [*failed, *islice(others, _ITEMS_SHOWN - len(failed))]


def _show_items(items: Sequence[Item], step: StepDetail) -> None:
    from penstock_cli.display.formats import duration
    from penstock_cli.display.summary import short_value

    if not items:
        return
    names = list(dict.fromkeys(name for item in items for name in item.inputs))
    rows = [
        [
            item.key,
            item.state,
            duration(item.seconds) if item.seconds is not None else "",
            *(short_value(item.inputs[name], _INPUT_WIDTH) if name in item.inputs else "" for name in names),
            _note(item),
        ]
        for item in items
    ]
    output.line()
    # The names of inputs keep their case.
    output.table(["ITEM", "STATE", "DURATION", *names, ""], rows, states="STATE", data=True)
    rest = (step.items or {}).get("count", 0) - len(items)
    if rest > 0:
        output.line(f"… and {rest} more: `penstock runs show {step.run_id} '{step.key}[I]'` shows one")


def _note(item: Item) -> str:
    from penstock_cli.display.formats import metrics

    if item.error is not None and item.state == "failed":
        return str(item.error)
    return str(item.progress) if item.progress is not None else metrics(item.metrics)


def _as_run(step: StepDetail) -> Run:
    """Return a run with this step alone, to be summarized."""
    from penstock.client.views import Run

    return Run(step.run_id, "", 0, outputs=step.outputs, steps={step.key: step})


def _object(step: StepDetail, items: Iterable[Item], store: FolderStore | None) -> dict[str, Any]:
    from penstock_cli.display import summary

    found = {
        "run_id": step.run_id,
        "key": step.key,
        **summary.step_state(step),
        **summary.step_fields(step, store),
        "inputs": summary.plain_values(step.inputs, store),
        "input_models": step.input_models,
        "history": [dataclasses.asdict(attempt) for attempt in step.history],
    }
    if step.items is not None:
        found["items_by_key"] = {
            item.key: {
                **summary.step_state(item),
                **summary.step_fields(item, store),
                "inputs": summary.plain_values(item.inputs, store),
            }
            for item in items
        }
    return found
