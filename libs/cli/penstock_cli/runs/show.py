"""`penstock runs show`: the state of a run and its steps."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock_cli.arguments import Json, RunArgument, resolve_run
from penstock_cli.display import output
from penstock_cli.errors import FAILED, UsageError

if TYPE_CHECKING:
    from penstock.client.client import Client
    from penstock.client.views import Run
    from penstock.store import FolderStore
    from penstock_cli.display.output import Segments
    from penstock_cli.display.progress import StepHistory
    from penstock_cli.platform.session import Session

_TIMELINE_LIMIT = 500


def show(
    name: RunArgument,
    step: Annotated[
        str | None,
        typer.Argument(metavar="[STEP]", help="Key of a step, or of an item such as train[3].", show_default=False),
    ] = None,
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Show its progress until it has finished; Ctrl-C leaves it."),
    ] = False,
    json: Json = False,
) -> None:
    """Show a run and its steps: times, metrics, outputs and errors.

    With STEP: its inputs, and how long its attempts were queued, loaded their inputs, ran and saved their outputs.
    With --follow, the exit code is 1 if the run did not succeed.
    """
    if follow and step is not None:
        raise UsageError("--follow shows a whole run: leave out STEP")
    # Heavy imports stay out of `--help`.
    from penstock_cli.display import chart, summary, waits
    from penstock_cli.platform import session
    from penstock_cli.runs import step_view

    with session.connect() as connected:
        client = connected.client
        if step is not None:
            step_view.show(client, resolve_run(client, name), step, _store(connected), json=json)
            return
        run = client.runs.get(resolve_run(client, name))
        if follow and not run.finished:
            run = _follow(connected, run, json=json)
        open_questions = [] if run.finished else client.questions.list(run.run_id)
        step_histories = {} if json or len(run.steps) > _TIMELINE_LIMIT else _step_histories(client, run)
        store = _store(connected)
    if json:
        output.as_json(_object(run, store))
        raise typer.Exit(FAILED if follow and not run.succeeded else 0)
    output.show([_header(run), *_properties(run)])
    output.show(chart.chart(run, step_histories))
    if open_questions:
        output.show([[], *waits.questions(open_questions)])
    output.show(summary.failures(run))
    output.show(summary.results(run, store))
    if run.error and not any(step.state == "failed" for step in run.steps.values()):
        output.show([[], [(run.error, "")]])
    if follow and not run.succeeded:
        raise typer.Exit(FAILED)


def _follow(connected: Session, run: Run, *, json: bool) -> Run:
    """Show the progress of a run until it has finished; with `json` nothing."""
    from penstock_cli.display.progress import Progress
    from penstock_cli.runs import compiled, follow
    from penstock_core import script_runs

    if run.version == script_runs.VERSION:
        pipeline = script_runs.pipeline(run.pipeline)
    else:
        pipeline = compiled.outline(connected.client.pipelines.get(run.pipeline, run.version).definition)
    progress = Progress(run.run_id, pipeline, run.version)
    options = follow.Options(json=json, quiet=False, logs=False, timeout=None)
    with follow.display(progress, show=not json) as display:
        if display.live:
            display.note("Ctrl-C leaves; the run continues")
        follow.follow(connected, progress, display, options, cancel=False)
    return connected.client.runs.get_finished(run.run_id)


def _store(connected: Session) -> FolderStore | None:
    """Return the artifact store of a local platform."""
    # Imported only where it is used.
    from penstock.store import FolderStore

    return FolderStore(connected.client.home / "artifacts") if connected.local else None


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
    inputs = {name: str(plain(value, None))[:60] for name, value in run.inputs.items()} | run.input_models
    for title, texts in (("labels", run.labels), ("tags", tags), ("inputs", inputs)):
        if texts:
            found.append((title, " ".join(f"{name}={text}" for name, text in texts.items())))
    return [[(f"  {title:<6}  ", "dim"), (text, "")] for title, text in found]


def _object(run: Run, store: FolderStore | None) -> dict[str, Any]:
    from penstock_cli.display import summary

    whole = summary.as_object(run, store)
    for key, step in run.steps.items():
        whole["steps"][key] |= summary.step_fields(step, store)
    inputs = {"inputs": summary.plain_values(run.inputs, store), "input_models": run.input_models}
    return {**summary.run_fields(run), **whole, **inputs}


def _step_histories(client: Client, run: Run) -> dict[str, StepHistory]:
    """Return the times of the attempts of each step, from the events so far."""
    from penstock_cli.display.progress import timeline

    return timeline(client.runs.events(run.run_id, until=run.last_seq))
