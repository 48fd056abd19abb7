"""`penstock runs archive` and `penstock runs delete`."""

from __future__ import annotations

import dataclasses
import sys
from typing import Annotated

import typer

from penstock_cli.arguments import Json, RunArgument, resolve_run
from penstock_cli.display import output
from penstock_cli.errors import UsageError


def archive(name: RunArgument, json: Json = False) -> None:
    """Archive a finished run now: move its facts from the log to the artifact store."""
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    with session.connect() as connected:
        run_id = resolve_run(connected.client, name)
        report = connected.client.runs.archive(run_id)
    if json:
        output.as_json(dataclasses.asdict(report))
    elif report.problems:
        raise UsageError(report.problems[0])
    elif report.archived_count:
        output.line(f"{run_id} archived")
    else:
        output.line(f"{run_id} unchanged: it is archived already, unfinished, or needed by an unfinished run")


def delete(
    name: RunArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    json: Json = False,
) -> None:
    """Delete a finished run.

    Deletes its log, its archive and its entry in lists. This cannot be undone.
    """
    from penstock_cli.platform import session

    with session.connect() as connected:
        run = connected.client.runs.get(resolve_run(connected.client, name))
        what = f"run {run.run_id} of {run.pipeline!r} ({run.state})"
        if not yes:
            if not sys.stdin.isatty():
                raise UsageError(f"deleting {what} cannot be undone: confirm with --yes")
            output.confirm(f"Delete {what}?")
        connected.client.runs.delete(run.run_id)
    if json:
        output.as_json({"run_id": run.run_id, "deleted": True})
    else:
        output.line(f"{run.run_id} deleted; garbage collection (`penstock admin gc`) removes its artifacts later")
