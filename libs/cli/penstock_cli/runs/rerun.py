"""`penstock runs rerun`: an earlier run again, as a new run, with the inputs it had or changed ones."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock_cli import failures
from penstock_cli.arguments import Deadline, NoCache, Refresh, cache_options, parse_duration
from penstock_cli.display import output
from penstock_cli.failures import UsageError
from penstock_cli.runs import commands
from penstock_cli.runs.follow import Options

if TYPE_CHECKING:
    from penstock.client.client import Client
    from penstock.client.views import Resumed, Run

_REASONS = 20
"""Steps of which it is told why they run again."""

_VERSIONS = ("same", "latest")


def rerun(
    name: commands.RunArgument,
    version: Annotated[
        str | None,
        typer.Option("--version", metavar="same|latest", help="That of the run, or the latest, where they differ."),
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            "-p", "--param", metavar="NAME=VALUE", help="Input that changes; NAME=@FILE reads it from a file."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Take over what the run has done; run only the rest.")
    ] = False,
    from_step: Annotated[
        str | None,
        typer.Option("--from", metavar="STEP", help="Resume, but run this step again, with all that follows it."),
    ] = None,
    no_cache: NoCache = False,
    refresh: Refresh = None,
    deadline: Deadline = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for its end.")] = False,
    timeout: Annotated[
        str | None, typer.Option("--timeout", metavar="TIME", help="Cancel the run after e.g. 90, 10m, 2h.")
    ] = None,
    logs: Annotated[bool, typer.Option("--logs", help="Show what the steps print.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show nothing but errors.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end, nothing else.")] = False,
) -> None:
    """Run it again as a new run, with the inputs it had, changed by `-p`, and show how it goes.

    With --resume or --from, steps whose results still count do not run again.

    Labels are kept. The exit codes are those of `penstock run`; with --detach 0 means that it was asked for.
    """
    # Heavy imports stay out of `--help`.
    from penstock_cli.display.progress import Progress
    from penstock_cli.platform import session
    from penstock_cli.runs import compiled, run

    if version is not None and version not in _VERSIONS:
        raise UsageError(f"--version {version!r} is none of {', '.join(_VERSIONS)}")
    if detach and (timeout or logs):
        raise UsageError("--detach does not wait, so it goes with neither --timeout nor --logs")
    more: dict[str, Any] = {
        **cache_options(no_cache, refresh),
        "version": version,
        "deadline": parse_duration(deadline) if deadline else None,
    }
    options = Options(json, quiet, logs, parse_duration(timeout) if timeout else None)
    with run.json_errors(wanted=json), run.exit_on_sigterm(), session.connect() as connected:
        client = connected.client
        parent = client.runs.get(commands.resolve(client, name))
        if version is None:
            _check_choice(client, parent)
        number = _latest(client, parent.pipeline) if version == "latest" else parent.version
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
            short_lived = connected.embedded is not None and connected.embedded.embedded
            _print_accepted(accepted, parent, short_lived=short_lived, options=options)
            return
        pipeline = compiled.outline(definition)
        ended = run.watch(connected, Progress(accepted.run_id, pipeline, accepted.version), options)
    raise typer.Exit(0 if ended.succeeded else failures.FAILED)


def _check_choice(client: Client, parent: Run) -> None:
    """The platform refuses this, too; here it is said in the words of the command."""
    latest = _latest(client, parent.pipeline)
    if latest != parent.version:
        raise UsageError(
            f"run {parent.run_id} was of version {parent.version} of {parent.pipeline!r}, the latest is {latest}: "
            "choose --version same or --version latest"
        )


def _latest(client: Client, pipeline: str) -> int:
    return max((version.version for version in client.pipelines.versions(pipeline)), default=0)


def _print_resumed(resumed: Resumed, count: int) -> None:
    """What is taken over, and why the other steps run again."""
    from penstock_cli.display.progress import steps

    output.line(f"resumes run {resumed.from_run}: {resumed.steps} of {steps(count)} taken over")
    for key, items in resumed.items.items():
        output.line(f"  {key}: {items} {'item' if items == 1 else 'items'} taken over")
    for key, why in list(resumed.rerun_steps.items())[:_REASONS]:
        output.line(f"  {key} runs again: {why}")
    if len(resumed.rerun_steps) > _REASONS:
        output.line(f"  … and {len(resumed.rerun_steps) - _REASONS} more")


def _print_accepted(accepted: Run, parent: Run, *, short_lived: bool, options: Options) -> None:
    if options.json:
        names = ("run_id", "pipeline", "version", "state")
        resumed = {"resumed": dataclasses.asdict(accepted.resumed)} if accepted.resumed is not None else {}
        output.as_json({name: getattr(accepted, name) for name in names} | {"parent": parent.run_id} | resumed)
    elif not options.quiet:
        output.line(f"run {accepted.run_id} of {accepted.pipeline} v{accepted.version}")
    if short_lived:
        output.note("no platform is up here: the run goes on while one is, such as the next command or `penstock up`")
