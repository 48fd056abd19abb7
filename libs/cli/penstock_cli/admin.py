"""`penstock admin`: administration and maintenance of a platform."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock_cli.arguments import Json
from penstock_cli.display import output
from penstock_cli.errors import PLATFORM, UsageError
from penstock_core.retention import duration

if TYPE_CHECKING:
    from penstock.client.retention import JanitorReport

app = typer.Typer(help="Administration and maintenance.", no_args_is_help=True)

_POLL_INTERVAL = 0.2
_SHOWN = 20


@app.command("rebuild")
def rebuild(
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the rebuild is complete.")] = True,
    json: Json = False,
) -> None:
    """Rebuild the read model from the log.

    The read model is the database of run lists and search.
    """
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    with session.connect() as connected:
        transport = connected.client.transport
        rebuild_status = transport.json("POST", "/v1/admin/rebuild")
        # A list reports how far the read model lags behind the log.
        while wait and transport.json("GET", "/v1/runs", query={"limit": 1})["lag"]:
            time.sleep(_POLL_INTERVAL)
    if json:
        output.as_json(rebuild_status)
    else:
        output.line(f"read model {'rebuilt' if wait else 'is being rebuilt'} from {rebuild_status['upto']} facts")


@app.command("verify")
def verify(
    accept: Annotated[
        bool, typer.Option("--accept", help="Accept the loss of messages that could not be restored.")
    ] = False,
    json: Json = False,
) -> None:
    """Verify the streams of the broker.

    Reads all messages, and repairs the log of runs from its copy in the read model. Exits with 1 if messages are
    missing.
    """
    from penstock_cli.platform import session

    with session.connect() as connected:
        transport = connected.client.transport
        if accept:
            found = transport.json("POST", "/v1/admin/integrity/accept")
        else:
            found = transport.json("POST", "/v1/admin/integrity/verify")
            while found["verifying"] or found["repairing"]:
                time.sleep(_POLL_INTERVAL)
                found = transport.json("GET", "/v1/admin/integrity")
    if json:
        output.as_json(found)
    else:
        for damage in found["damages"]:
            state = "missing" if damage["open"] else "accepted" if damage["accepted"] else "restored"
            output.line(f"{state}: {damage['description']}")
        if not found["damages"]:
            output.line("all messages of all streams are there")
    if not found["ok"]:
        raise typer.Exit(1)


@app.command("backup")
def backup(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the backup.", show_default=False)],
    artifacts: Annotated[
        bool, typer.Option("--artifacts/--no-artifacts", help="Copy artifacts, or only list them.")
    ] = True,
    json: Json = False,
) -> None:
    """Back up the platform, running or not.

    Saves all streams and buckets, and the artifacts that the folder does not have yet. Run it on the machine of the
    platform, or with the settings of its services.
    """
    import asyncio

    from penstock.client import platform

    platform.check_installed()
    from penstock_standalone import backup

    manifest = _offline(lambda: asyncio.run(backup.back_up(platform.state_folder(), folder, artifacts=artifacts)))
    _print_manifest(manifest, folder, "saved to", json=json)
    for problem in manifest["artifacts"]["missing"]:
        output.note(f"error: artifact {problem}")
    if manifest["artifacts"]["missing"]:
        raise typer.Exit(1)


@app.command("restore")
def restore(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the backup.", show_default=False)],
    force: Annotated[bool, typer.Option("--force", help="Delete the streams of the platform first.")] = False,
    json: Json = False,
) -> None:
    """Restore a backup into an empty platform that is not running."""
    import asyncio

    from penstock.client import platform

    platform.check_installed()
    from penstock_standalone import backup

    home = platform.state_folder()
    platform.prepare_home(home)
    manifest = _offline(lambda: asyncio.run(backup.restore(home, folder, force=force)))
    _print_manifest(manifest, folder, "restored from", json=json)


@app.command("nats-config")
def nats_config(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the files.", show_default=False)],
    json: Json = False,
) -> None:
    """Write the keys of the services and the accounts of your own NATS servers.

    Keys that exist stay; delete a file to replace its key.
    """
    from penstock.client import platform

    platform.check_installed()
    from penstock_adapters.nats.auth import generated
    from penstock_core.errors import PenstockError

    try:
        files = generated.write(folder)
    except (PenstockError, OSError) as error:
        output.note(f"error: {folder}: {error}")
        raise typer.Exit(PLATFORM) from error
    if json:
        output.as_json({"files": [str(file) for file in files]})
        return
    output.line(f"{folder / generated.CONFIG}: include it in the configuration of every server")
    output.line(f"{folder}/SERVICE.nk: PENSTOCK_NATS_NKEY of each service, which nobody else may read")
    output.line(f"{folder / generated.ROUTES}: password between the servers of a cluster")
    output.line(f"{folder / generated.ISSUER}: its content is PENSTOCK_NATS_ISSUER_SEED of the gateways")


def _offline(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Do the work; exits with an error message if it fails."""
    from penstock_core.errors import PenstockError

    try:
        return work()
    except (PenstockError, OSError) as error:
        output.note(f"error: {error}")
        raise typer.Exit(PLATFORM) from error


def _print_manifest(manifest: dict[str, Any], folder: Path, done: str, *, json: bool) -> None:
    from penstock_cli.display.formats import plural, size

    if json:
        output.as_json({name: manifest[name] for name in ("version", "started_at", "finished_at", "artifacts")})
        return
    messages = sum(one["state"]["messages"] for one in manifest["streams"])
    stored = manifest["artifacts"]
    copied = "" if stored["copied"] else ", not copied"
    output.line(
        f"{done} {folder}: {plural(len(manifest['streams']), 'stream')} with {plural(messages, 'message')}, "
        f"{plural(stored['objects'], 'artifact')} ({size(stored['bytes'])}{copied})"
    )


@app.command("gc")
def collect_garbage(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be deleted.")] = False,
    older_than_log: Annotated[
        bool, typer.Option("--older-than-log", help="Also remove unreferenced artifacts that are older than the log.")
    ] = False,
    json: Json = False,
) -> None:
    """Delete expired runs and unreferenced artifacts.

    Deletes runs by the retention policies, and archives runs that are due.
    """
    from penstock_cli.platform import session

    with session.connect() as connected:
        report = connected.client.retention.collect_garbage(dry_run=dry_run, older_than_log=older_than_log)
    if json:
        output.as_json(dataclasses.asdict(report))
    else:
        _print_report(report)
    if report.problems:
        raise typer.Exit(1)


@app.command("restore-runs")
def restore_runs(
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="Run id.", show_default=False)] = None,
    every: Annotated[bool, typer.Option("--all", help="Restore all archived runs.")] = False,
    json: Json = False,
) -> None:
    """Restore archived runs into the log.

    Use it when the log of the platform was lost.
    """
    from penstock_cli.display.formats import plural
    from penstock_cli.platform import session

    if (run is None) is not every:
        raise UsageError("pass either the id of a run or --all")
    with session.connect() as connected:
        report = connected.client.retention.restore_runs(run)
    if json:
        output.as_json(dataclasses.asdict(report))
    else:
        output.line(f"{plural(report.restored_count, 'run')} restored")
        _print_problems(report)
    if report.problems:
        raise typer.Exit(1)


def _print_report(report: JanitorReport) -> None:
    from penstock_cli.display.formats import plural, size

    would = "would be " if report.dry_run else ""
    for row in report.deleted_runs[:_SHOWN]:
        output.line(f"{would}deleted: run {row['run_id']} of {row['pipeline']} ({row['state']}): {row['reason']}")
    if report.deleted_count > _SHOWN:
        output.line(f"… and {report.deleted_count - _SHOWN} more")
    if report.pipelines:
        rows = [
            (name, str(share["runs"]), str(share["objects"]), size(share["bytes"]))
            for name, share in sorted(report.pipelines.items())
        ]
        output.table(["pipeline", "runs", "artifacts", "size"], rows)
    output.line(f"runs: {report.runs}, {report.deleted_count} {would}deleted, {report.archived_count} {would}archived")
    removed = f"{report.removed['objects']} ({size(report.removed['bytes'])}) {would}removed"
    output.line(
        f"artifacts: {report.stored['objects']} ({size(report.stored['bytes'])}), {removed}, "
        f"{report.unreferenced['objects']} ({size(report.unreferenced['bytes'])}) unreferenced, "
        f"removed after a grace period of {duration(report.grace)}"
    )
    if report.predates_log:
        output.line(
            f"{plural(report.predates_log, 'unreferenced artifact')} older than the log, which may have been replaced: "
            "kept (--older-than-log removes them)"
        )
    _print_problems(report)


def _print_problems(report: JanitorReport) -> None:
    for problem in report.problems:
        output.note(f"error: {problem}")
