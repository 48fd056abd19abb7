"""`penstock run`: compile the user's pipeline, run it on the running or an embedded platform, show progress."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Generator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock_cli import errors
from penstock_cli.arguments import (
    Deadline,
    Detach,
    JsonResult,
    Logs,
    NoCache,
    Quiet,
    Refresh,
    Timeout,
    check_detach,
    parse_duration,
    parse_pairs,
    run_options,
)
from penstock_cli.display import output
from penstock_cli.runs import follow
from penstock_cli.runs.follow import Options

if TYPE_CHECKING:
    from penstock.client.embedded import EmbeddedPlatform
    from penstock.client.views import Run
    from penstock.sources import PreparedPipeline
    from penstock_cli.display.progress import Progress
    from penstock_cli.platform.session import Session
    from penstock_cli.runs.published import Reference
    from penstock_core.pipeline.ir import Pipeline


def run(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE[:PIPELINE]|NAME[@VERSION]",
            help="File or folder that defines the pipeline, or the name of a registered pipeline.",
        ),
    ],
    param: Annotated[
        list[str] | None,
        typer.Option(
            "-p",
            "--param",
            metavar="NAME=VALUE",
            help="Input of the pipeline; NAME=@FILE reads it from a file; repeatable.",
        ),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the run: sets its label `name`.")] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="Label of the run; repeatable.")
    ] = None,
    timeout: Timeout = None,
    no_cache: NoCache = False,
    refresh: Refresh = None,
    deadline: Deadline = None,
    priority: Annotated[
        int, typer.Option("--priority", min=-1000, max=1000, help="Runs of higher priority are served first.")
    ] = 0,
    detach: Detach = False,
    logs: Logs = False,
    quiet: Quiet = False,
    json: JsonResult = False,
) -> None:
    """Run a pipeline and show its progress.

    The version that it registers is an experiment: deployments and child runs use published versions only (see
    `penstock register`). With NAME, it runs the latest published version of a registered pipeline, or that VERSION.

    Uses the running platform (see `penstock up`), or starts an embedded one, which stops 10 minutes after its last use
    (see `penstock down`).
    Exit codes: 0 succeeded; 1 failed or cancelled; 2 wrong usage, or the pipeline does not compile;
    3 the platform is missing, broken or rejected the request. With --detach, 0 means that the run was accepted.
    """
    # Imported after the embedded platform was started.
    from penstock import user_modules
    from penstock.client import platform
    from penstock_cli.runs import published

    check_detach(detach, timeout, logs)
    options = Options(json, quiet, logs, parse_duration(timeout) if timeout else None)
    labels = parse_pairs("--label", label or []) | ({"name": name} if name is not None else {})
    wanted = {"labels": labels, "priority": priority, **run_options(no_cache, refresh, deadline)}
    with json_errors(wanted=json), exit_on_sigterm():
        registered = published.parse(source)
        if registered is None or not (os.environ.get("PENSTOCK_URL") or platform.state_folder().exists()):
            user_modules.locate(source)
            ended = _run_source(source, param or [], wanted, options, detach=detach)
        else:
            ended = _run_registered(registered, param or [], wanted, options, detach=detach)
    if ended is not None:
        raise typer.Exit(0 if ended.succeeded else errors.FAILED)


def _run_source(
    source: str, params: list[str], wanted: dict[str, Any], options: Options, *, detach: bool
) -> Run | None:
    """Run a pipeline of a file; return the finished run, or None with `detach`."""
    from penstock_cli.platform import session

    with session.ensure_platform() as embedded:
        prepared, inputs = prepare(source, params, quiet_stdout=options.json)
        connected, accepted = _submit(embedded, prepared, wanted | {"inputs": inputs})
        return follow_accepted(connected, accepted, prepared.ir, options, prepared.source.root, detach=detach)


def _run_registered(
    reference: Reference, params: list[str], wanted: dict[str, Any], options: Options, *, detach: bool
) -> Run | None:
    """Run a registered pipeline; return the finished run, or None with `detach`."""
    from penstock_cli.platform import session
    from penstock_cli.runs import compiled, published

    with session.connect(steps=True) as connected:
        version = published.get(connected.client, reference)
        inputs = published.inputs(version, params)
        accepted = connected.client.run(version, inputs, **wanted)
        return follow_accepted(connected, accepted, compiled.outline(version.definition), options, detach=detach)


def follow_accepted(
    connected: Session, accepted: Run, pipeline: Pipeline, options: Options, root: Path | None = None, *, detach: bool
) -> Run | None:
    """Follow an accepted run, and return it when it has finished; with `detach`, print it and return None."""
    from penstock_cli.display.progress import Progress

    for warning in accepted.warnings:
        output.note(warning)
    if detach:
        print_accepted(accepted, connected, options)
        return None
    return watch(connected, Progress(accepted.run_id, pipeline, accepted.version), options, root)


@contextlib.contextmanager
def json_errors(*, wanted: bool) -> Generator[None]:
    """With `--json`, print an error as a JSON object of the same form as a run, too."""
    try:
        yield
    except Exception as error:
        if wanted and not isinstance(error, errors.DetachedError):
            empty: dict[str, Any] = {"run_id": None, "state": None, "outputs": {}}
            output.as_json({**empty, "error": errors.message(error), "models": [], "steps": {}})
        raise


def prepare(source: str, params: list[str], *, quiet_stdout: bool) -> tuple[PreparedPipeline, dict[str, Any]]:
    """Compile the user's pipeline, parse its inputs, pack its source."""
    from penstock import sources
    from penstock_cli.runs import inputs

    with stdout_to_stderr() if quiet_stdout else contextlib.nullcontext():
        pipeline = sources.load(source)
        compiled = pipeline.compile()
        given = inputs.parse(pipeline, params)
        prepared = sources.pack(pipeline, compiled)
    print_warnings(prepared)
    return prepared, given


def print_warnings(prepared: PreparedPipeline) -> None:
    """Print what was left out of the source, and options that have no effect here."""
    from penstock.authoring import secret_options

    for warning in [*prepared.warnings, *secret_options.secret_warnings(prepared.ir)]:
        output.note(f"warning: {warning}")


def _submit(
    embedded: EmbeddedPlatform | None, prepared: PreparedPipeline, wanted: dict[str, Any]
) -> tuple[Session, Run]:
    from penstock_cli import limits
    from penstock_cli.platform import session

    connected = session.open_session(embedded)
    version = connected.client.pipelines.register(prepared, publish=False, log=output.note)
    limits.warn_unknown_limits(connected.client, prepared.ir)
    return connected, connected.client.run(version, **wanted)


def print_accepted(accepted: Run, connected: Session, options: Options, more: dict[str, Any] | None = None) -> None:
    """Print the run of `--detach`, with `more` fields in JSON."""
    if options.json:
        names = ("run_id", "pipeline", "version", "state")
        output.as_json({name: getattr(accepted, name) for name in names} | (more or {}))
    elif not options.quiet:
        output.line(f"run {accepted.run_id} of {accepted.pipeline} v{accepted.version}")
    if connected.idle == 0:
        output.note("no platform is running here: the run continues while one is, such as with `penstock up`")


def watch(connected: Session, progress: Progress, options: Options, root: Path | None = None) -> Run:
    """Follow a run until it has finished, then print its result. `root` is the folder of its source, if known."""
    from penstock_cli.display import summary

    show = not (options.quiet or options.json)
    with follow.display(progress, show=show) as display:
        follow.follow(connected, progress, display, options)
    ended = connected.client.runs.get_finished(progress.run_id)
    store = artifact_folder(connected)
    if options.json:
        output.as_json(summary.as_object(ended, store))
    elif not options.quiet:
        _print_result(ended, progress, connected, root)
    if (options.json or options.quiet) and not ended.succeeded:
        for line in summary.failures(ended, root):
            output.note("".join(text for text, _ in line))
    return ended


def artifact_folder(connected: Session) -> Any:
    """Return the artifact store of a local platform, or None."""
    from penstock.store import FolderStore

    return FolderStore(connected.client.home / "artifacts") if connected.local else None


def _print_result(ended: Run, progress: Progress, connected: Session, root: Path | None) -> None:
    from penstock_cli.display import chart, summary
    from penstock_cli.display.formats import duration, plural

    count = sum(step.item_of is None for step in ended.steps.values())
    took = (progress.finished_at or ended.finished_at or 0.0) - (progress.created_at or ended.created_at)
    output.show([[]])
    output.show(
        [
            [
                (ended.pipeline, "bold"),
                (f" v{ended.version} ", ""),
                (ended.state, output.STYLES.get(ended.state, "")),
                (f" in {duration(took)}", ""),
                (f"  {plural(count, 'step')}, run {ended.run_id}", "dim"),
            ]
        ]
    )
    output.show(chart.chart(ended, progress.step_histories))
    output.show(summary.failures(ended, root))
    output.show(summary.results(ended, artifact_folder(connected)))
    if ended.error and not any(step.state == "failed" for step in ended.steps.values()):
        output.show([[], [(ended.error, "")]])
    commands = next_commands(ended)
    lines = [f"{'next steps:' if index == 0 else '':<11} {command}" for index, command in enumerate(commands)]
    output.show([[], *([(line, "dim")] for line in lines)])


def next_commands(ended: Run) -> list[str]:
    """Return the commands that a user may need next: a failed step can be debugged, an output can be fetched."""
    commands = [f"penstock runs show {ended.run_id}", f"penstock runs logs {ended.run_id}"]
    for step in ended.steps.values():
        # Without an executor, no function was called: a wait, or a child run.
        if step.state == "failed" and step.executor and step.items is None:
            commands.append(f"penstock debug {ended.run_id} {shlex.quote(step.key)} --pdb")
            break
    files = [name for name, value in ended.outputs.items() if "artifact" in value]
    if files:
        commands.append(f"penstock artifacts get {ended.run_id} -o {files[-1]}")
    return commands


@contextlib.contextmanager
def exit_on_sigterm() -> Generator[None]:
    """Exit on SIGTERM through SystemExit, so that the terminal is restored."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def stdout_to_stderr() -> Generator[None]:
    """Redirect what the user's module prints at import, so that it does not mix with the JSON object."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
