"""`penstock partitions`: the parts of the data of deployments, and their states."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo

import typer

from penstock_cli.arguments import Json
from penstock_cli.display import output
from penstock_cli.display.formats import plural
from penstock_cli.errors import UsageError

if TYPE_CHECKING:
    from penstock.client.partitions import Partition, PartitionSummary

app = typer.Typer(help="List partitions of deployments, and add dynamic ones.", no_args_is_help=True)

Deployment = Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="Name of the deployment.")]

_SYMBOLS = {"missing": ("·", "."), "running": ("▶", ">"), "succeeded": ("✓", "+"), "failed": ("✗", "x")}
_STYLES = {"missing": "dim", "running": "bold blue", "succeeded": "green", "failed": "bold red"}


@app.command("list")
def list_partitions(
    deployment: Deployment,
    state: Annotated[
        str | None, typer.Option("--state", help="Only those in this state: missing, running, succeeded, failed.")
    ] = None,
    json: Json = False,
) -> None:
    """List the partitions of a deployment with their states, oldest first."""
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    if state is not None and state not in _SYMBOLS:
        raise UsageError(f"--state {state}: expected one of {', '.join(_SYMBOLS)}")
    with session.connect() as connected:
        found = connected.client.partitions.list(deployment)
    found = [one for one in found if state in (None, one.state)]
    if json:
        output.as_json([dataclasses.asdict(one) for one in found])
        return
    if not found:
        output.note(f"deployment {deployment} has no {'such ' if state else ''}partitions")
        return
    rows = [(one.key, one.state, str(one.runs), one.run_id or "", output.clock(one.finished_at)) for one in found]
    output.table(["partition", "state", "runs", "latest run", "finished"], rows, states="state")


@app.command("show")
def show(
    deployment: Deployment,
    key: Annotated[str | None, typer.Argument(metavar="[PARTITION]", help="Key of a partition.")] = None,
    json: Json = False,
) -> None:
    """Show the partitions of a deployment as a calendar, or one partition with its runs."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        client = connected.client
        if key is None:
            summary, found = client.partitions.summary(deployment), client.partitions.list(deployment)
            runs = []
        else:
            summary, found = None, [client.partitions.get(deployment, key)]
            runs = client.runs.list(deployment=deployment, labels={"partition": key}, limit=100)
    if json:
        shown = {"partitions": [dataclasses.asdict(one) for one in found]}
        if summary:
            output.as_json({**dataclasses.asdict(summary), **shown})
        else:
            output.as_json({**dataclasses.asdict(found[0]), "latest_runs": [one.run_id for one in runs]})
        return
    if summary is not None:
        output.line(f"{deployment}: {describe(summary)}")
        if summary.lag:
            output.note(
                f"the states lack {plural(summary.lag, 'fact')} of runs, which the read model does not have yet"
            )
        output.show(calendar(summary, found))
        return
    output.line(f"{deployment}, partition {found[0].key}: {found[0].state}")
    if runs:
        rows = [(one.run_id, one.state, output.clock(one.created_at), one.requested_by) for one in runs]
        output.table(["run", "state", "created", "by"], rows, states="state")


@app.command("add")
def add(
    deployment: Deployment,
    keys: Annotated[list[str], typer.Argument(metavar="KEY...", help="Keys of the partitions.")],
    json: Json = False,
) -> None:
    """Add dynamic partitions to a deployment. Those that exist stay as they are."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        added = connected.client.partitions.add(deployment, keys)
    if json:
        output.as_json({"added": added})
    else:
        output.line(
            f"added {plural(len(added), 'partition')} to {deployment}" + (f": {', '.join(added)}" if added else "")
        )


def describe(summary: PartitionSummary) -> str:
    """Return the partitions of a deployment in numbers."""
    timed = f"{plural(summary.total, 'partition')} by {summary.by}, {summary.tz}"
    shown = timed if summary.tz else plural(summary.total, f"{summary.by} partition")
    counts = ", ".join(f"{count} {state}" for state, count in summary.counts.items() if count)
    return f"{shown}: {counts}" if counts else shown


def calendar(summary: PartitionSummary, found: list[Partition]) -> list[output.Segments]:
    """A row for each day of hours, month of days, year of weeks or months; or one for each other partition."""
    if not summary.tz:
        width = max((len(one.key) for one in found), default=0)
        return [[(f"{one.key.ljust(width)}  ", ""), _symbol(one.state), (f" {one.state}", "")] for one in found]
    rows: dict[str, dict[int, str]] = {}
    zone = ZoneInfo(summary.tz)
    for one in found:
        start = datetime.fromtimestamp(one.start or 0.0, zone)
        week = start.isocalendar()
        row, column = {
            "hour": (start.date().isoformat(), start.hour),
            "day": (f"{start:%Y-%m}", start.day),
            "week": (str(week.year), week.week),
            "month": (str(start.year), start.month),
        }[summary.by]
        cells = rows.setdefault(row, {})
        # The hour that is repeated when the clock goes back: the worse state of both is shown.
        cells[column] = min(cells.get(column, one.state), one.state, key=[*_ORDER].index)
    first, last = {"hour": (0, 23), "day": (1, 31), "week": (1, 53), "month": (1, 12)}[summary.by]
    columns = range(first, last + 1)
    width = max((len(row) for row in rows), default=0)
    lines: list[output.Segments] = [[(" " * width, ""), *((f" {column:2}", "dim") for column in columns)]]
    for row, cells in rows.items():
        line: output.Segments = [(row.ljust(width), "")]
        for column in columns:
            text, style = _symbol(cells[column]) if column in cells else (" ", "")
            line.append((f"  {text}", style))
        lines.append(line)
    legend = "   ".join(f"{_symbol(state)[0]} {state}" for state in _SYMBOLS)
    return [*lines, [(legend, "dim")]]


_ORDER = ("failed", "missing", "running", "succeeded")


def _symbol(state: str) -> tuple[str, str]:
    better, plain = _SYMBOLS.get(state, ("?", "?"))
    return output.symbols(better, plain), _STYLES.get(state, "")
