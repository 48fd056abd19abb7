"""`penstock admin gc` and `penstock admin restore`: what is not kept goes; what a lost log has lost comes back."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from penstock_cli.display import output
from penstock_cli.failures import UsageError
from penstock_core.retention import duration

if TYPE_CHECKING:
    from penstock.client.retention import JanitorReport

_SHOWN = 20


def collect(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would go.")] = False,
    older_than_log: Annotated[
        bool, typer.Option("--older-than-log", help="Also artifacts older than the log itself, if nothing names them.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Delete runs by the policies, archive what is due, remove artifacts that nothing names."""
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    with session.connect() as connected:
        report = connected.client.retention.collect_garbage(dry_run=dry_run, older_than_log=older_than_log)
    if json:
        output.as_json(dataclasses.asdict(report))
    else:
        _print_report(report)
    if report.problems:
        raise typer.Exit(1)


def restore(
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="Id of the run.", show_default=False)] = None,
    every: Annotated[bool, typer.Option("--all", help="All runs of which there is an archive.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Put archived runs back into a log that has lost them."""
    from penstock_cli.platform import session

    if (run is None) is not every:
        raise UsageError("write the id of a run, or --all")
    with session.connect() as connected:
        report = connected.client.retention.restore_runs(run)
    if json:
        output.as_json(dataclasses.asdict(report))
    else:
        output.line(f"{report.restored} run{_plural(report.restored)} put back into the log")
        _print_problems(report)
    if report.problems:
        raise typer.Exit(1)


def _print_report(report: JanitorReport) -> None:
    # It stands on the SDK.
    from penstock_cli.display.progress import size

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
        output.table(["pipeline", "runs", "artifacts", "bytes"], rows)
    output.line(f"runs: {report.runs}, {report.deleted_count} {would}deleted, {report.archived} {would}archived")
    removed = f"{report.removed['objects']} ({size(report.removed['bytes'])}) {would}removed"
    output.line(
        f"artifacts: {report.stored['objects']} ({size(report.stored['bytes'])}), {removed}, "
        f"{report.unreferenced['objects']} ({size(report.unreferenced['bytes'])}) named by nothing, "
        f"which go when that is so for {duration(report.grace)}"
    )
    if report.predates_log:
        output.line(
            f"{report.predates_log} unreferenced artifacts are older than the log, which may be a new one: they stay "
            "(--older-than-log removes them, too)"
        )
    _print_problems(report)


def _print_problems(report: JanitorReport) -> None:
    for problem in report.problems:
        output.note(f"error: {problem}")


def _plural(count: int) -> str:
    return "" if count == 1 else "s"
