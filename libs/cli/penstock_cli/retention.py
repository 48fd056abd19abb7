"""`penstock retention`: what is kept and for how long. `penstock runs archive|delete`."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from penstock_cli import arguments
from penstock_cli.display import output
from penstock_cli.failures import UsageError
from penstock_cli.runs.commands import RunArgument, resolve
from penstock_core.retention import duration

if TYPE_CHECKING:
    from penstock.client.retention import RetentionPolicy, RetentionSettings

app = typer.Typer(help="What is kept, and for how long.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command("show")
def show(json: Json = False) -> None:
    """Show the policies, and when runs are archived."""
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    with session.connect() as connected:
        settings = connected.client.retention.get()
    _print_settings(settings, json)


@app.command("set")
def set_policy(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the policy; one of this name is replaced.")],
    pipeline: Annotated[str, typer.Option("--pipeline", help="Only runs of it; * and ? stand for any letters.")] = "*",
    project: Annotated[str, typer.Option("--project", help="Only runs of this project.")] = "*",
    state: Annotated[
        list[str] | None, typer.Option("--state", help="Only runs that ended like this: failed; repeatable.")
    ] = None,
    keep_for: Annotated[
        str | None, typer.Option("--keep-for", metavar="TIME", help="Keep them for this long, e.g. 90d.")
    ] = None,
    keep_last: Annotated[
        int | None, typer.Option("--keep-last", metavar="N", help="Keep the latest N of each pipeline.", min=0)
    ] = None,
    forever: Annotated[bool, typer.Option("--forever", help="Keep them all.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Even if no run at all would be left.")] = False,
    json: Json = False,
) -> None:
    """Say how long runs are kept. What a policy is about, and none of those keeps, is deleted."""
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
        output.note("`penstock admin gc --dry-run` lists what would go now")


@app.command("remove")
def delete(name: Annotated[str, typer.Argument(metavar="NAME")], json: Json = False) -> None:
    """Remove a policy: what only it let go is kept."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        connected.client.retention.delete(name)
    if json:
        output.as_json({"name": name, "removed": True})
    else:
        output.line(f"policy {name} removed")


@app.command("archive")
def archive(
    after: Annotated[str, typer.Argument(metavar="TIME", help="After the end of a run, e.g. 14d; or 'never'.")],
    json: Json = False,
) -> None:
    """Set when runs move from the log to the archive. Everything still answers for them."""
    from penstock_cli.platform import session

    seconds = None if after == "never" else 0.0 if after == "0" else arguments.parse_duration(after)
    with session.connect() as connected:
        settings = connected.client.retention.archive_after(seconds)
    _print_settings(settings, json)


def archive_run(name: RunArgument, json: Json = False) -> None:
    """Move the facts of a run that is over from the log to the artifact store now."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        run_id = resolve(connected.client, name)
        report = connected.client.runs.archive(run_id)
    if json:
        output.as_json(dataclasses.asdict(report))
    elif report.problems:
        raise UsageError(report.problems[0])
    elif report.archived:
        output.line(f"{run_id} archived")
    else:
        output.line(f"{run_id} stays as it is: it is archived already, under way, or needed by a run under way")


def delete_run(name: RunArgument, yes: Yes = False, json: Json = False) -> None:
    """Delete a run that is over: its log, its archive, its place in lists. This cannot be undone."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        run = connected.client.runs.get(resolve(connected.client, name))
        what = f"run {run.run_id} of {run.pipeline!r} ({run.state})"
        if not yes:
            if not sys.stdin.isatty():
                raise UsageError(f"{what} would be deleted, which cannot be undone: confirm it with --yes")
            typer.confirm(f"delete {what}?", abort=True)
        connected.client.runs.delete(run.run_id)
    if json:
        output.as_json({"run_id": run.run_id, "deleted": True})
    else:
        output.line(f"{run.run_id} deleted; what only it holds goes with the next collections (`penstock admin gc`)")


def _print_settings(settings: RetentionSettings, json: bool) -> None:
    if json:
        output.as_json(dataclasses.asdict(settings))
        return
    after = settings.archive_after
    output.line("runs stay in the log" if after is None else f"runs are archived {duration(after)} after their end")
    if not settings.policies:
        output.line("no policies: nothing is deleted")
        return
    rows = [
        (one.name, one.project, one.pipeline, ", ".join(one.states) or "all", _keeps(one)) for one in settings.policies
    ]
    output.table(["policy", "project", "pipeline", "states", "keeps"], rows)


def _keeps(policy: RetentionPolicy) -> str:
    if policy.forever:
        return "all"
    parts = [f"for {duration(policy.keep_for)}"] if policy.keep_for is not None else []
    parts += [f"the latest {policy.keep_last}"] if policy.keep_last is not None else []
    return " and ".join(parts)
