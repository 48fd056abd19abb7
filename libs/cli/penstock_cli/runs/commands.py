"""`penstock runs`: look at runs and cancel them. `list`, `explain` and `rerun` have files of their own."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock_cli.display import output
from penstock_cli.failures import FAILED, UsageError

if TYPE_CHECKING:
    from penstock.client.client import Client
    from penstock.client.views import LogLine, Run
    from penstock_cli.display.progress import StepHistory

app = typer.Typer(help="List, show, explain, follow, repeat, cancel and export runs.", no_args_is_help=True)

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Id of the run, its first characters, or `last`.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_TIMELINE_LIMIT = 500


def resolve(client: Client, name: str) -> str:
    """The id of the run that `name` means: `last`, a whole id, or how one begins."""
    if len(name) == 26:
        return name
    if name == "last":
        newest = client.runs.list(limit=1)
        if not newest:
            raise UsageError("there are no runs yet: start one with `penstock run FILE`")
        return newest[0].run_id
    found = [run.run_id for run in client.runs.list(limit=6, prefix=name)]
    if name in found:
        return name
    if len(found) > 1:
        more = " …" if len(found) > 5 else ""
        raise UsageError(f"{name!r} begins several runs: {', '.join(found[:5])}{more}; write more of it")
    return found[0] if found else name


def run_summary(run: Run) -> dict[str, object]:
    """A run as JSON, without its steps."""
    names = ("run_id", "pipeline", "version", "state", "requested_at", "finished_at", "labels", "trigger", "error")
    return {name: getattr(run, name) for name in names}


@app.command("show")
def show(name: RunArgument, json: Json = False) -> None:
    """Show a run: its steps, when they ran, metrics, outputs, errors."""
    from penstock.store import FolderStore
    from penstock_cli.display import chart, summary
    from penstock_cli.display.progress import seconds, steps
    from penstock_cli.platform import session
    from penstock_cli.runs import questions

    with session.connect() as connected:
        client = connected.client
        run = client.runs.get(resolve(client, name))
        open_questions = [] if run.finished else client.questions.list(run.run_id)
        step_histories = {} if json or len(run.steps) > _TIMELINE_LIMIT else _step_histories(client, run)
    store = FolderStore(client.home / "artifacts") if connected.local else None
    if json:
        whole = summary.as_object(run, store)
        whole["steps"] = {key: {**step, **_details(run, key, store)} for key, step in whole["steps"].items()}
        output.as_json({**run_summary(run), **whole, "inputs": _plain_values(run.inputs, store)})
        return
    took = f" in {seconds(run.finished_at - run.requested_at)}" if run.finished_at else ""
    count = sum(step.item_of is None for step in run.steps.values())
    output.show(
        [
            [
                (run.pipeline, "bold"),
                (f" v{run.version} " if run.version else " ", ""),
                (run.state, output.STYLES.get(run.state, "")),
                (
                    f"{took}  {steps(count)}, run {run.run_id}, asked for {output.clock(run.requested_at)}",
                    "dim",
                ),
            ],
            *_about(run),
        ]
    )
    output.show(chart.chart(run, step_histories))
    if open_questions:
        output.show([[], *questions.lines(open_questions)])
    output.show(summary.failures(run))
    output.show(summary.results(run, store))
    if run.error and not any(step.state == "failed" for step in run.steps.values()):
        output.show([[], [(run.error, "")]])


def _about(run: Run) -> list[list[tuple[str, str]]]:
    from penstock_cli.display.progress import steps
    from penstock_cli.display.summary import plain

    lines: list[list[tuple[str, str]]] = []
    if run.trigger.get("type") == "rerun":
        lines.append([("  rerun of  ", "dim"), (run.trigger.get("parent", ""), "")])
    elif run.trigger.get("type") == "resume":
        begin = f" from {run.trigger['from']}" if run.trigger.get("from") else ""
        nodes = [step for step in run.steps.values() if step.item_of is None]
        taken = sum(step.from_run is not None for step in nodes)
        told = f"{run.trigger.get('parent', '')}{begin}, {taken} of {steps(len(nodes))} taken over"
        lines.append([("  resumes   ", "dim"), (told, "")])
    if run.labels:
        lines.append([("  labels  ", "dim"), (" ".join(f"{k}={v}" for k, v in run.labels.items()), "")])
    tags = {name: text for step in run.steps.values() for name, text in step.tags.items()}
    if tags:
        lines.append([("  tags    ", "dim"), (" ".join(f"{k}={v}" for k, v in tags.items()), "")])
    if run.inputs:
        shown = (f"{name}={str(plain(value, None))[:60]}" for name, value in run.inputs.items())
        lines.append([("  inputs  ", "dim"), (" ".join(shown), "")])
    return lines


def _details(run: Run, key: str, store: object) -> dict[str, object]:
    step = run.steps[key]
    return {
        "params": step.params,
        "tags": step.tags,
        "reason": step.reason,
        "error": {"type": step.error.type, "message": step.error.message, "traceback": step.error.traceback}
        if step.error
        else None,
        "outputs": _plain_values(step.outputs, store),
        "artifacts": _plain_values(step.artifacts, store),
        "checkpoint": dataclasses.asdict(step.checkpoint) if step.checkpoint else None,
        "cache": dataclasses.asdict(step.cache) if step.cache else None,
        "waits_for": dataclasses.asdict(step.waits_for) if step.waits_for else None,
        "depends_on": list(step.depends_on),
    }


def _plain_values(values: dict[str, object], store: object) -> dict[str, object]:
    from penstock_cli.display.summary import plain

    return {name: plain(value, store) for name, value in values.items()}  # type: ignore[arg-type]


def _step_histories(client: Client, run: Run) -> dict[str, StepHistory]:
    """When the tries of each step were asked for, started and ended, from the events so far."""
    from penstock_cli.display.progress import timeline

    return timeline(client.runs.events(run.run_id, until=run.last_seq))


@app.command("logs")
def logs(
    name: RunArgument,
    step: Annotated[str | None, typer.Option("--step", help="Only this step (its key, such as train[3]).")] = None,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", "-f", help="Go on until the run is over.")] = True,
    measured: Annotated[bool, typer.Option("--metrics", help="Show measured values, too.")] = False,
    json: Json = False,
) -> None:
    """Show what the steps of a run printed."""
    import json as codec

    from penstock_cli.platform import session

    colour = output.terminal()
    with session.connect() as connected:
        client = connected.client
        run_id = resolve(client, name)
        if step is not None:
            _check_step(client.runs.get(run_id), step)
        for line in client.runs.logs(run_id, step, follow):
            if json:
                shown = {k: getattr(line, k) for k in ("at", "step", "attempt", "stream", "text", "metric", "value")}
                sys.stdout.write(codec.dumps(shown, ensure_ascii=False) + "\n")
            elif line.metric is None or measured:
                _print_line(line, colour=colour)
            if follow:
                sys.stdout.flush()


def _print_line(line: LogLine, *, colour: bool) -> None:
    attempt = f"#{line.attempt}" if line.attempt > 1 else ""
    prefix = f"{output.clock(line.at, precise=True)}  {line.step}{attempt} |"
    for text in str(line).splitlines():
        sys.stdout.write(f"\x1b[2m{prefix}\x1b[0m {text}\n" if colour else f"{prefix} {text}\n")


def _check_step(run: Run, step: str) -> None:
    if step not in run.steps:
        known = ", ".join(list(run.steps)[:20])
        raise UsageError(f"run {run.run_id} has no step {step!r}; it has: {known}{' …' if len(run.steps) > 20 else ''}")


@app.command("cancel")
def cancel(
    name: RunArgument,
    step: Annotated[str | None, typer.Option("--step", help="Only this step or item (its key).")] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept with the run.")] = "",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return when the run is over.")] = True,
    json: Json = False,
) -> None:
    """Cancel a run, or one step of it: what runs is stopped, what waits is skipped."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        client = connected.client
        run = client.runs.get(resolve(client, name))
        if step is not None:
            _cancel_step(client, run.run_id, step, reason, wait=wait, json=json)
            return
        if not run.finished:
            client.runs.cancel(run.run_id, reason)
            run = client.runs.wait(run.run_id) if wait else client.runs.get(run.run_id)
        else:
            output.note(f"run {run.run_id} was over already")
    if json:
        output.as_json(run_summary(run))
    else:
        output.line(f"run {run.run_id} {run.state}")
    raise typer.Exit(0 if run.state == "cancelled" or not wait else FAILED)


def _cancel_step(client: Client, run_id: str, step: str, reason: str, *, wait: bool, json: bool) -> None:
    """Ask to cancel one step, and wait until it is over; the run goes on."""
    state = client.runs.cancel(run_id, reason, step=step)
    was_over = state is not None
    if wait and state is None:
        for event in client.runs.events(run_id):
            if event.kind in ("attempt.finished", "step.skipped", "step.expanded", "run.finished"):
                state = client.runs.cancel(run_id, reason, step=step)
            if state is not None:
                break
    if json:
        output.as_json({"run_id": run_id, "step": step, "state": state})
    else:
        if was_over:
            output.note(f"step {step} was over already")
        output.line(f"step {step} of run {run_id} {state or 'is about to be cancelled'}")
    raise typer.Exit(0 if state == "cancelled" or not wait else FAILED)


@app.command("export")
def export(
    name: RunArgument,
    to: Annotated[Path | None, typer.Option("--to", help="File or existing folder; default standard output.")] = None,
) -> None:
    """Write the history of a run as JSON lines: its pipeline and every fact of its log."""
    import shutil
    import tempfile

    from penstock_cli.platform import session

    with session.connect() as connected, tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        client = connected.client
        path = client.runs.export(resolve(client, name), to if to is not None else folder)
        if to is not None:
            output.line(str(path))
            return
        # Whole before the first byte goes out: a broken connection leaves no half of a history in a pipe.
        with path.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()
