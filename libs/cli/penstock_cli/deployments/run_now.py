"""`penstock deployments run`: a run of a deployment at once, whatever its triggers."""

from __future__ import annotations

from typing import Annotated

import typer

from penstock_cli.arguments import (
    Detach,
    JsonResult,
    Logs,
    Quiet,
    Timeout,
    check_detach,
    parse_duration,
    parse_pairs,
)
from penstock_cli.errors import FAILED
from penstock_cli.runs.follow import Options


def run_now(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the deployment.")],
    param: Annotated[
        list[str] | None,
        typer.Option(
            "-p",
            "--param",
            metavar="NAME=VALUE",
            help="Input that differs from the deployment's; NAME=@FILE reads it from a file; repeatable.",
        ),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="Label of the run; repeatable.")
    ] = None,
    partition: Annotated[
        str, typer.Option("--partition", metavar="KEY", help="Partition that the run computes, such as 2026-01-31.")
    ] = "",
    timeout: Timeout = None,
    detach: Detach = False,
    logs: Logs = False,
    quiet: Quiet = False,
    json: JsonResult = False,
) -> None:
    """Run a deployment now, with its pipeline, inputs and labels, and show the progress.

    Its triggers do not matter; it may be paused. Exit codes are those of `penstock run`.
    """
    # Heavy imports stay out of `--help`.
    from penstock.client.runs.inputs import encode_inputs
    from penstock_cli.platform import session
    from penstock_cli.runs import compiled, published, run

    check_detach(detach, timeout, logs)
    options = Options(json, quiet, logs, parse_duration(timeout) if timeout else None)
    with run.json_errors(wanted=json), run.exit_on_sigterm(), session.connect(steps=True) as connected:
        client = connected.client
        definition = client.deployments.get(name).definition
        version = published.get(client, published.Reference(definition["pipeline"], definition["version"]))
        inputs = encode_inputs(client.artifacts, published.inputs(version, param or []))
        accepted = client.deployments.run(name, inputs, labels=parse_pairs("--label", label or []), partition=partition)
        ended = run.follow_accepted(connected, accepted, compiled.outline(version.definition), options, detach=detach)
    if ended is not None:
        raise typer.Exit(0 if ended.succeeded else FAILED)
