"""`penstock runs rerun`: a new run with the pipeline and inputs of an earlier one."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock_cli.arguments import (
    Deadline,
    Detach,
    JsonResult,
    Logs,
    NoCache,
    Quiet,
    Refresh,
    RunArgument,
    Timeout,
    check_detach,
    parse_duration,
    resolve_run,
    run_options,
)
from penstock_cli.display import output
from penstock_cli.errors import FAILED, UsageError
from penstock_cli.runs.follow import Options

if TYPE_CHECKING:
    from penstock.client.client import Client
    from penstock.client.views import Resumed, Run

_REASONS = 20
"""Maximum number of steps listed with the reason why they run again."""

_VERSIONS = ("same", "latest")


def rerun(
    name: RunArgument,
    version: Annotated[
        str | None,
        typer.Option(
            "--version",
            metavar="same|latest|N",
            help="Version to run; required if the version of the run is published and not the latest.",
        ),
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            "-p",
            "--param",
            metavar="NAME=VALUE",
            help="Input that changes; NAME=@FILE reads it from a file; repeatable.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Reuse the results of the run that are still valid; run the other steps.")
    ] = False,
    from_step: Annotated[
        str | None,
        typer.Option("--from", metavar="STEP", help="Resume, but rerun this step and everything downstream."),
    ] = None,
    no_cache: NoCache = False,
    refresh: Refresh = None,
    deadline: Deadline = None,
    detach: Detach = False,
    timeout: Timeout = None,
    logs: Logs = False,
    quiet: Quiet = False,
    json: JsonResult = False,
) -> None:
    """Rerun or resume a run.

    Submits a new run with the pipeline, inputs and labels of an earlier run, and follows it.
    With --resume or --from, results of the earlier run that are still valid are reused.

    Exit codes are those of `penstock run`; with --detach, 0 means that the run was accepted.
    """
    # Heavy imports stay out of `--help`.
    from penstock_cli.display.progress import Progress
    from penstock_cli.platform import session
    from penstock_cli.runs import compiled, run

    choice = _parse_version(version)
    check_detach(detach, timeout, logs)
    more: dict[str, Any] = {"version": choice, **run_options(no_cache, refresh, deadline)}
    options = Options(json, quiet, logs, parse_duration(timeout) if timeout else None)
    with run.json_errors(wanted=json), run.exit_on_sigterm(), session.connect(steps=True) as connected:
        client = connected.client
        parent = client.runs.get(resolve_run(client, name))
        number = _number(client, parent, choice)
        inputs: dict[str, Any] = {}
        if param:
            inputs = compiled.parse(client.pipelines.get(parent.pipeline, number).definition["params"], param)
        if resume or from_step:
            accepted = client.runs.resume(parent.run_id, inputs, from_step=from_step or None, **more)
        else:
            accepted = client.runs.rerun(parent.run_id, inputs, **more)
        definition = client.pipelines.get(accepted.pipeline, accepted.version).definition
        if not (options.json or options.quiet) and accepted.resumed is not None:
            _print_resumed(accepted.resumed, len(definition["nodes"]))
        if detach:
            resumed = {"resumed": dataclasses.asdict(accepted.resumed)} if accepted.resumed is not None else {}
            run.print_accepted(accepted, connected, options, {"parent": parent.run_id} | resumed)
            return
        pipeline = compiled.outline(definition)
        ended = run.watch(connected, Progress(accepted.run_id, pipeline, accepted.version), options)
    raise typer.Exit(0 if ended.succeeded else FAILED)


def _number(client: Client, parent: Run, choice: str | int | None) -> int:
    # The platform rejects this, too; here the error names the options of the command.
    if isinstance(choice, int):
        return choice
    published = [version for version in client.pipelines.versions(parent.pipeline) if version.published]
    latest = next((version.version for version in published if version.latest), None)
    if choice == "latest":
        if latest is None:
            raise UsageError(f"{parent.pipeline!r} has no published version: `penstock register FILE` publishes one")
        return latest
    if choice is None and latest != parent.version and parent.version in {version.version for version in published}:
        raise UsageError(
            f"run {parent.run_id} has version {parent.version} of {parent.pipeline!r}, but the latest is {latest}: "
            "pass --version same or --version latest"
        )
    return parent.version


def _parse_version(text: str | None) -> str | int | None:
    if text is None or text in _VERSIONS:
        return text
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise UsageError(f"--version: expected a number or one of {', '.join(_VERSIONS)}; got {text!r}")


def _print_resumed(resumed: Resumed, count: int) -> None:
    """Print what is reused, and why the other steps run again."""
    from penstock_cli.display.formats import plural

    output.line(f"resumes run {resumed.from_run}: {resumed.steps} of {plural(count, 'step')} reused")
    for key, items in resumed.items.items():
        output.line(f"  {key}: {plural(items, 'item')} reused")
    for key, why in list(resumed.rerun_steps.items())[:_REASONS]:
        output.line(f"  {key} runs again: {why}")
    if len(resumed.rerun_steps) > _REASONS:
        output.line(f"  … and {len(resumed.rerun_steps) - _REASONS} more")
