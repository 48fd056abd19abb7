"""`penstock backfills`: runs of many partitions, or of past ticks."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock_cli.arguments import Json
from penstock_cli.display import output
from penstock_cli.display.formats import plural
from penstock_cli.errors import FAILED

if TYPE_CHECKING:
    from penstock.client.backfills import Backfill
    from penstock.client.client import Client

app = typer.Typer(help="Run deployments for many partitions, or for past ticks.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="BACKFILL", help="Id of the backfill.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept in its history.")]

_KEYS_SHOWN = 40
_INTERVAL = 1.0


@app.command("start")
def start(
    deployment: Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="Name of the deployment.")],
    since: Annotated[
        str, typer.Option("--from", metavar="TIME|KEY", help="First partition, or earliest tick, such as 2026-01-31.")
    ] = "",
    until: Annotated[
        str, typer.Option("--to", metavar="TIME|KEY", help="Last partition, or latest tick, such as 2026-02-28.")
    ] = "",
    partition: Annotated[
        list[str] | None, typer.Option("--partition", metavar="KEY", help="This partition; repeatable.")
    ] = None,
    all: Annotated[bool, typer.Option("--all", help="All partitions that exist.")] = False,
    missing: Annotated[bool, typer.Option("--missing", help="Only partitions without a run.")] = False,
    failed: Annotated[bool, typer.Option("--failed", help="Only partitions whose latest run failed.")] = False,
    trigger: Annotated[str, typer.Option("--trigger", help="The cron trigger, if the deployment has several.")] = "",
    param: Annotated[
        list[str] | None,
        typer.Option(
            "-p",
            "--param",
            metavar="NAME=VALUE",
            help="Input that differs from the deployment's; NAME=@FILE reads it from a file; repeatable.",
        ),
    ] = None,
    max_active: Annotated[int, typer.Option("--max-active", min=1, max=1000, help="Runs at the same time.")] = 4,
    newest_first: Annotated[bool, typer.Option("--newest-first", help="Run the newest partitions first.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would run, and start nothing.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for its end and show progress; exit with 1 unless all runs succeeded.")
    ] = False,
    json: Json = False,
) -> None:
    """Start a backfill: a run of the deployment for each selected partition, or past tick of its cron trigger.

    Partitions are selected by a range, by their keys, or by their states. The runs use the deployment and the version
    of its pipeline as they are now. Backfills continue only while a platform is running.
    """
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    only = [state for state, given in (("missing", missing), ("failed", failed)) if given]
    order = "newest" if newest_first else "oldest"
    with session.connect(steps=not dry_run) as connected:
        client = connected.client
        inputs = _inputs(client, deployment, param) if param else {}
        found = client.backfills.start(
            deployment,
            since,
            until,
            partitions=partition or [],
            all=all,
            only=only,
            trigger=trigger,
            inputs=inputs,
            max_active=max_active,
            order=order,
            dry_run=dry_run,
        )
        if not json:
            _started(found, dry_run=dry_run)
        if wait and not dry_run:
            found = _followed(client, found, quiet=json)
        if not dry_run and not wait:
            session.note_triggers(connected)
    if json:
        output.as_json(dataclasses.asdict(found))
    if wait and not dry_run and found.status != "succeeded":
        raise typer.Exit(FAILED)


def _inputs(client: Client, deployment: str, given: list[str]) -> dict[str, Any]:
    """Parse `-p` by the parameters of the version that the deployment runs."""
    from penstock.client.runs.inputs import encode_inputs
    from penstock_cli.runs import compiled

    definition = client.deployments.get(deployment).definition
    params = client.pipelines.get(definition["pipeline"], definition["version"]).definition["params"]
    return encode_inputs(client.artifacts, compiled.parse(params, given))


@app.command("list")
def list_backfills(
    deployment: Annotated[
        str | None, typer.Argument(metavar="[DEPLOYMENT]", help="Only those of this deployment.")
    ] = None,
    json: Json = False,
) -> None:
    """List backfills with their progress, newest first."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.backfills.list(deployment)
    if json:
        output.as_json([dataclasses.asdict(one) for one in found])
        return
    if not found:
        output.note("no backfills: start one with `penstock backfills start DEPLOYMENT`")
        return
    rows = [
        (one.id, one.deployment, one.status, _progress(one), str(_unsuccessful(one)), one.by, output.clock(one.at))
        for one in found
    ]
    output.table(["backfill", "deployment", "status", "progress", "failed", "by", "started"], rows, states="status")


@app.command("show")
def show(id: Id, json: Json = False) -> None:
    """Show a backfill with its items."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.backfills.get(id)
        items = [*connected.client.backfills.items(id)]
    if json:
        output.as_json({**dataclasses.asdict(found), "items": [dataclasses.asdict(one) for one in items]})
        return
    counts = ", ".join(f"{count} {state}" for state, count in found.counts.items() if count)
    output.line(f"backfill {found.id} of {found.deployment}: {found.status}, {_progress(found)} ({counts})")
    limit = f"at most {plural(found.max_active, 'run')} at a time, {found.order} first"
    output.line(f"{found.pipeline} v{found.version}, revision {found.revision}, {limit}, by {found.by}")
    for key, error in found.errors.items():
        output.line(f"{key}: {error}")
    kind = "tick" if found.trigger else "partition"
    rows = [(one.key, one.state, str(one.round) if one.round else "", one.run_id or "") for one in items]
    output.table([kind, "state", "retries", "run"], rows, states="state")


@app.command("pause")
def pause(id: Id, reason: Reason = "", json: Json = False) -> None:
    """Pause a backfill: no further runs start; active runs continue."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        _changed(connected.client.backfills.pause(id, reason), json=json)


@app.command("resume")
def resume(id: Id, reason: Reason = "", json: Json = False) -> None:
    """Resume a paused backfill."""
    from penstock_cli.platform import session

    with session.connect(steps=True) as connected:
        _changed(connected.client.backfills.resume(id, reason), json=json)


@app.command("cancel")
def cancel(
    id: Id,
    runs: Annotated[bool, typer.Option("--runs", help="Cancel its active runs, too.")] = False,
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Cancel a backfill: no further runs start; active runs continue, unless --runs is given."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        _changed(connected.client.backfills.cancel(id, reason, runs=runs), json=json)


@app.command("retry")
def retry(id: Id, reason: Reason = "", json: Json = False) -> None:
    """Run the partitions or ticks of a backfill once more whose runs did not succeed."""
    from penstock_cli.platform import session

    with session.connect(steps=True) as connected:
        _changed(connected.client.backfills.retry(id, reason), json=json)


def _started(found: Backfill, *, dry_run: bool) -> None:
    kind = "tick" if found.trigger else "partition"
    version = f"{found.pipeline} v{found.version}"
    if not dry_run:
        verb = "started" if found.created else "exists"
        output.line(f"backfill {found.id} {verb}: {plural(found.total, kind)} of {found.deployment}, {version}")
        return
    output.line(f"would run {version} for {plural(found.total, kind)} of {found.deployment}:")
    for key in found.keys[:_KEYS_SHOWN]:
        output.line(f"  {key}")
    if found.total > _KEYS_SHOWN:
        output.line(f"  and {found.total - _KEYS_SHOWN} more")


def _followed(client: Client, found: Backfill, *, quiet: bool) -> Backfill:
    shown = ""
    while not found.has_finished:
        time.sleep(_INTERVAL)
        found = client.backfills.get(found.id)
        if (text := _progress(found)) != shown and not quiet and not found.has_finished:
            shown = text
            output.note(f"{text} finished")
    if not quiet:
        output.line(_line(found))
    return found


def _changed(found: Backfill, *, json: bool) -> None:
    if json:
        output.as_json(dataclasses.asdict(found))
    else:
        output.line(_line(found))


def _line(found: Backfill) -> str:
    failed = _unsuccessful(found)
    return f"backfill {found.id} is {found.status}: {_progress(found)} finished" + (
        f", {failed} failed" if failed else ""
    )


def _progress(found: Backfill) -> str:
    return f"{found.finished}/{found.total}"


def _unsuccessful(found: Backfill) -> int:
    return found.finished - found.counts.get("succeeded", 0)
