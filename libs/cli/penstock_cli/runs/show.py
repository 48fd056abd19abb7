"""`penstock runs show`: the state of a run and its steps."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

from penstock_cli.arguments import Json, RunArgument, resolve_run
from penstock_cli.display import output

if TYPE_CHECKING:
    from penstock.client.client import Client
    from penstock.client.views import Run
    from penstock.store import FolderStore
    from penstock_cli.display.output import Segments
    from penstock_cli.display.progress import StepHistory

_TIMELINE_LIMIT = 500


def show(name: RunArgument, json: Json = False) -> None:
    """Show a run and its steps: times, metrics, outputs and errors."""
    # Heavy imports stay out of `--help`.
    from penstock.store import FolderStore
    from penstock_cli.display import chart, summary, waits
    from penstock_cli.platform import session

    with session.connect() as connected:
        client = connected.client
        run = client.runs.get(resolve_run(client, name))
        open_questions = [] if run.finished else client.questions.list(run.run_id)
        step_histories = {} if json or len(run.steps) > _TIMELINE_LIMIT else _step_histories(client, run)
    store = FolderStore(client.home / "artifacts") if connected.local else None
    if json:
        output.as_json(_object(run, store))
        return
    output.show([_header(run), *_properties(run)])
    output.show(chart.chart(run, step_histories))
    if open_questions:
        output.show([[], *waits.questions(open_questions)])
    output.show(summary.failures(run))
    output.show(summary.results(run, store))
    if run.error and not any(step.state == "failed" for step in run.steps.values()):
        output.show([[], [(run.error, "")]])


def _header(run: Run) -> Segments:
    from penstock_cli.display.formats import duration, plural

    took = (
        f" in {duration(run.finished_at - run.created_at)}"
        if run.finished_at
        else f" for {duration(time.time() - run.created_at)}"
    )
    count = plural(sum(step.item_of is None for step in run.steps.values()), "step")
    return [
        (run.pipeline, "bold"),
        (f" v{run.version} " if run.version else " ", ""),
        (run.state, output.STYLES.get(run.state, "")),
        (f"{took}  {count}, run {run.run_id}, created {output.clock(run.created_at)}", "dim"),
    ]


def _properties(run: Run) -> list[Segments]:
    from penstock_cli.display.formats import plural
    from penstock_cli.display.summary import plain

    found: list[tuple[str, str]] = []
    if run.trigger.get("type") == "rerun":
        found.append(("rerun of", run.trigger.get("parent", "")))
    elif run.trigger.get("type") == "resume":
        begin = f" from {run.trigger['from']}" if run.trigger.get("from") else ""
        nodes = [step for step in run.steps.values() if step.item_of is None]
        reused = sum(step.from_run is not None for step in nodes)
        found.append(
            ("resumes", f"{run.trigger.get('parent', '')}{begin}, {reused} of {plural(len(nodes), 'step')} reused")
        )
    if run.requested_by:
        found.append(("by", run.requested_by))
    tags = {name: text for step in run.steps.values() for name, text in step.tags.items()}
    inputs = {name: str(plain(value, None))[:60] for name, value in run.inputs.items()}
    for title, texts in (("labels", run.labels), ("tags", tags), ("inputs", inputs)):
        if texts:
            found.append((title, " ".join(f"{name}={text}" for name, text in texts.items())))
    return [[(f"  {title:<6}  ", "dim"), (text, "")] for title, text in found]


def _object(run: Run, store: FolderStore | None) -> dict[str, Any]:
    from penstock_cli.display import summary

    whole = summary.as_object(run, store)
    for key, step in run.steps.items():
        whole["steps"][key] |= {
            "params": step.params,
            "tags": step.tags,
            "reason": step.reason,
            "error": _optional(step.error),
            "outputs": summary.plain_values(step.outputs, store),
            "artifacts": summary.plain_values(step.artifacts, store),
            "checkpoint": _optional(step.checkpoint),
            "cache": _optional(step.cache),
            "waits_for": _optional(step.waits_for),
            "depends_on": list(step.depends_on),
            "items": step.items,
            "progress": _optional(step.progress),
            "last_failed": _optional(step.last_failed),
        }
    return {**summary.run_fields(run), **whole, "inputs": summary.plain_values(run.inputs, store)}


def _optional(value: Any) -> dict[str, Any] | None:
    return dataclasses.asdict(value) if value is not None else None


def _step_histories(client: Client, run: Run) -> dict[str, StepHistory]:
    """Return the times of the attempts of each step, from the events so far."""
    from penstock_cli.display.progress import timeline

    return timeline(client.runs.events(run.run_id, until=run.last_seq))
