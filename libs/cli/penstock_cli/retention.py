"""`penstock retention`: retention policies and archiving."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from penstock_cli import arguments
from penstock_cli.arguments import Json
from penstock_cli.display import output
from penstock_core.retention import duration

if TYPE_CHECKING:
    from penstock.client.retention import RetentionPolicy, RetentionSettings

app = typer.Typer(help="Manage retention policies and archiving.", no_args_is_help=True)


@app.command("show")
def show(json: Json = False) -> None:
    """Show the retention policies, and when runs are archived."""
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    with session.connect() as connected:
        settings = connected.client.retention.get()
    _print_settings(settings, json)


@app.command("set")
def set_policy(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the policy.")],
    pipeline: Annotated[
        str, typer.Option("--pipeline", help="Only runs of these pipelines; * and ? are wildcards.")
    ] = "*",
    project: Annotated[str, typer.Option("--project", help="Only runs of these projects.")] = "*",
    state: Annotated[
        list[str] | None, typer.Option("--state", help="Only runs in this terminal state; repeatable.")
    ] = None,
    keep_for: Annotated[
        str | None, typer.Option("--keep-for", metavar="TIME", help="Retain runs for this time, e.g. 90d.")
    ] = None,
    keep_last: Annotated[
        int | None, typer.Option("--keep-last", metavar="N", help="Retain the latest N runs per pipeline.", min=0)
    ] = None,
    forever: Annotated[bool, typer.Option("--forever", help="Retain all matching runs.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Confirm a policy that deletes all finished runs.")] = False,
    json: Json = False,
) -> None:
    """Create or replace a policy.

    A run is deleted if at least one policy matches it and no matching policy retains it.
    """
    from penstock_cli.platform import session

    seconds = 0.0 if keep_for == "0" else arguments.parse_duration(keep_for) if keep_for is not None else None
    with session.connect() as connected:
        settings = connected.client.retention.set(
            name,
            project=project,
            pipeline=pipeline,
            states=state or [],
            keep_for=seconds,
            keep_last=keep_last,
            forever=forever,
            confirm=yes,
        )
    _print_settings(settings, json)
    if not json:
        output.note("list what would be deleted now with `penstock admin gc --dry-run`")


@app.command("delete")
def delete(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the policy.")], json: Json = False
) -> None:
    """Delete a policy."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        connected.client.retention.delete(name)
    if json:
        output.as_json({"name": name, "deleted": True})
    else:
        output.line(f"policy {name} deleted")


@app.command("archive-after")
def archive_after(
    after: Annotated[str, typer.Argument(metavar="TIME", help="Time after the end of a run, e.g. 14d; or 'never'.")],
    json: Json = False,
) -> None:
    """Set when finished runs are archived.

    Archived runs move from the log to the artifact store and stay readable.
    """
    from penstock_cli.platform import session

    seconds = None if after == "never" else 0.0 if after == "0" else arguments.parse_duration(after)
    with session.connect() as connected:
        settings = connected.client.retention.archive_after(seconds)
    _print_settings(settings, json)


def _print_settings(settings: RetentionSettings, json: bool) -> None:
    if json:
        output.as_json(dataclasses.asdict(settings))
        return
    after = settings.archive_after
    output.line("runs are not archived" if after is None else f"runs are archived {duration(after)} after their end")
    if not settings.policies:
        output.line("no policies: no run is deleted")
        return
    rows = [
        (one.name, one.project, one.pipeline, ", ".join(one.states) or "all", _retains(one))
        for one in settings.policies
    ]
    output.table(["name", "project", "pipeline", "states", "retains"], rows)


def _retains(policy: RetentionPolicy) -> str:
    if policy.forever:
        return "all"
    parts = [f"for {duration(policy.keep_for)}"] if policy.keep_for is not None else []
    parts += [f"the latest {policy.keep_last}"] if policy.keep_last is not None else []
    return " and ".join(parts)
