"""`penstock runs list`: find runs."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from penstock_cli import arguments
from penstock_cli.arguments import Json
from penstock_cli.display import output
from penstock_cli.errors import UsageError

if TYPE_CHECKING:
    from penstock.client.views import Run

_STATES = ("queued", "running", "succeeded", "failed", "cancelled", "skipped")


def list_runs(
    pipeline: Annotated[str | None, typer.Option("--pipeline", help="Only runs of this pipeline.")] = None,
    state: Annotated[
        str | None, typer.Option("--state", help=f"Only runs in this state: {', '.join(_STATES)}.")
    ] = None,
    deployment: Annotated[str | None, typer.Option("--deployment", help="Only runs of this deployment.")] = None,
    trigger: Annotated[
        str | None, typer.Option("--trigger", help="Only runs with this trigger: manual, cron, rerun ….")
    ] = None,
    mine: Annotated[bool, typer.Option("--mine", help="Only runs that you requested.")] = False,
    requested_by: Annotated[
        str | None,
        typer.Option("--requested-by", metavar="PRINCIPAL", help="Only runs of this principal: user:ada, token:ci …."),
    ] = None,
    label: Annotated[
        list[str], typer.Option("--label", help="Only runs with this label or tag: name=text, or name; repeatable.")
    ] = [],  # noqa: B006
    metric: Annotated[
        list[str], typer.Option("--metric", help='Only runs with this metric: "loss<0.2"; repeatable.')
    ] = [],  # noqa: B006
    param: Annotated[
        list[str], typer.Option("--param", help='Only runs with this input or parameter: "depth=4"; repeatable.')
    ] = [],  # noqa: B006
    since: Annotated[
        str | None, typer.Option("--since", help="Only runs created since: 2026-11-21T08:15, or 2d ago.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", help="Only runs created before.")] = None,
    sort: Annotated[
        str | None,
        typer.Option("--sort", help="duration, finished_at, metric:NAME …; a leading minus sorts descending."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="Maximum number of runs.")] = 20,
    json: Json = False,
) -> None:
    """List runs, newest first. Filters are combined with AND."""
    # Heavy imports stay out of `--help`.
    from penstock_cli.display.summary import run_fields
    from penstock_cli.platform import session

    if state is not None and state not in _STATES:
        raise UsageError(f"--state: expected one of {', '.join(_STATES)}; got {state!r}")
    now = time.time()
    with session.connect() as connected:
        found = connected.client.runs.list(
            pipeline,
            state,
            limit,
            deployment=deployment,
            trigger=trigger,
            requested_by=requested_by,
            mine=mine,
            labels=dict(_label(text) for text in label),
            metrics=metric,
            params=param,
            since=arguments.parse_time(since, now) if since else None,
            until=arguments.parse_time(until, now) if until else None,
            sort=sort,
        )
    if json:
        output.as_json([run_fields(run) | {"metrics": run.metrics, "params": run.params} for run in found])
        return
    filtered = any((pipeline, state, deployment, trigger, mine, requested_by, label, metric, param, since, until, sort))
    if not found:
        output.note("no runs" + (" match" if filtered else " yet: start one with `penstock run FILE`"))
        return
    measured = sorted({name for run in found for name in run.metrics} | {name for run in found for name in run.params})
    columns = ["run", "pipeline", "state", "created", "duration", *measured, "labels", "error"]
    output.table(columns, (_row(run, measured) for run in found), states="state")


def _row(run: Run, measured: Iterable[str]) -> list[str]:
    from penstock_cli.display.formats import duration, number

    values = [run.metrics.get(name, run.params.get(name, "")) for name in measured]
    return [
        run.run_id,
        run.title,
        run.state,
        output.clock(run.created_at),
        duration(run.finished_at - run.created_at) if run.finished_at else "",
        *(number(value) if isinstance(value, float) else str(value) for value in values),
        " ".join(f"{key}={value}" for key, value in run.labels.items()),
        run.error or "",
    ]


def _label(text: str) -> tuple[str, str | None]:
    name, equals, value = text.partition("=")
    return name, value if equals else None
