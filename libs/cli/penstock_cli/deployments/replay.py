"""`penstock triggers replay`: past events through another revision of a deployment, beside what really happened."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock_cli.arguments import Json, parse_time
from penstock_cli.display import output
from penstock_cli.display.formats import duration, plural
from penstock_cli.errors import FAILED, UsageError

if TYPE_CHECKING:
    from penstock.client.client import Client
    from penstock.client.deployments import Decision, Replay, ReplayedRun
    from penstock.client.views import Run

_SECTIONS = ("outputs", "metrics")
_SHOWN = 20


def replay(
    deployment: Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="Name of the deployment.")],
    revision: Annotated[
        int | None, typer.Option("--revision", min=1, help="Revision of the deployment; default the latest.")
    ] = None,
    version: Annotated[
        int | None, typer.Option("--version", min=1, help="Version of the pipeline, also an experiment.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Events since this time, or of this age: 2d, 90m.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Events before this time.")] = None,
    event: Annotated[
        str, typer.Option("--event", metavar="EVENT", help="This event only: its sequence or digest.")
    ] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="Most events, oldest first.")] = 100,
    decisions_only: Annotated[
        bool, typer.Option("--decisions-only", help="Only compare the decisions, and run nothing.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Do not wait for the runs, and do not compare them.")
    ] = False,
    json: Json = False,
) -> None:
    """Replay past events with another revision or version in isolated runs, and compare with what really happened.

    The runs have the label `shadow`. They register no models, cause no events and start nothing else. Exits with 1 if a
    run of the replay does not succeed.
    """
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    if not since and not event:
        raise UsageError("give --since TIME, such as --since 7d, or --event EVENT")
    now = time.time()
    with session.connect(steps=not decisions_only) as connected:
        client = connected.client
        found = client.deployments.replay(
            deployment,
            revision=revision,
            version=version,
            since=parse_time(since, now) if since else None,
            until=parse_time(until, now) if until else None,
            event=event,
            limit=limit,
            decisions_only=decisions_only,
        )
        follow = not decisions_only and not detach
        pairs = [_pair(client, one) for one in found.runs] if follow else []
        differences = [_differences(client, one) for one in found.runs] if follow else []
    if json:
        rows = [_row(pair) | {"differences": rest} for pair, rest in zip(pairs, differences, strict=True)]
        output.as_json({**dataclasses.asdict(found), "compared": rows})
    else:
        _print_decisions(found)
        if follow:
            _print_runs(found, pairs, differences)
        elif not decisions_only:
            output.line(
                f"started {plural(sum(one.run_id is not None for one in found.runs), 'run')}: label shadow={found.id}"
            )
    if any(one.error for one in found.runs) or any(after and not after.succeeded for _, _, after in pairs):
        raise typer.Exit(FAILED)


_Pair = tuple["ReplayedRun", "Run | None", "Run | None"]


def _pair(client: Client, one: ReplayedRun) -> _Pair:
    """A run of the replay, with the run that really happened and its own end."""
    from penstock.errors import NotFoundError

    after = client.runs.wait(one.run_id) if one.run_id else None
    try:
        before = client.runs.get(one.before) if one.before else None
    except NotFoundError:  # deleted meanwhile
        before = None
    return one, before, after


def _differences(client: Client, one: ReplayedRun) -> list[dict[str, Any]]:
    """The outputs and metrics that differ between both runs."""
    from penstock.errors import NotFoundError

    if not one.run_id or not one.before:
        return []
    try:
        found = client.runs.compare([one.before, one.run_id])
    except NotFoundError:
        return []
    return [
        {"section": row.section, "step": row.step, "name": row.name, "values": [*row.values]}
        for row in found.rows
        if row.section in _SECTIONS
    ]


def _row(pair: _Pair) -> dict[str, Any]:
    one, before, after = pair
    return {
        "event": one.event,
        "trigger": one.trigger,
        "before": _end(before),
        "after": _end(after),
    }


def _end(run: Run | None) -> dict[str, Any] | None:
    return None if run is None else {"run_id": run.run_id, "state": run.state, "duration": run.duration}


def _print_decisions(found: Replay) -> None:
    changed = [one for one in found.decisions if one.differs]
    what = f"revision {found.revision}, {found.pipeline} v{found.version}"
    output.line(
        f"{plural(found.events, 'event')} through {found.deployment}, {what}: "
        f"{plural(len(changed), 'decision')} of {len(found.decisions)} would differ"
    )
    if found.truncated:
        output.note("more events match: raise --limit, or continue with --since")
    rows = [
        (
            str(one.event),
            output.clock(one.at),
            one.type,
            one.trigger,
            _outcome(one.before),
            _outcome(one.after),
            "differs" if one.differs else "",
        )
        for one in found.decisions
    ]
    if rows:
        output.table(["event", "received", "type", "trigger", "happened", "replayed", ""], rows)


def _outcome(found: Decision | None) -> str:
    if found is None:
        return "no trigger"
    false = [clause.text for clause in found.clauses if clause.holds is False]
    return (
        f"{found.outcome}: {found.error}" if found.error else f"{found.outcome}: {false[0]}" if false else found.outcome
    )


def _print_runs(found: Replay, pairs: list[_Pair], differences: list[list[dict[str, Any]]]) -> None:
    rows = [
        (
            str(one.event),
            one.trigger,
            _state(before, one.before),
            _state(after, one.run_id) if not one.error else f"rejected: {one.error}",
            _difference(rest) if before and after else "",
        )
        for (one, before, after), rest in zip(pairs, differences, strict=True)
    ]
    if not rows:
        output.note("the revision starts no run for these events")
        return
    output.line()
    output.table(["event", "trigger", "happened", "replayed", "outputs and metrics"], rows)
    output.line(f"penstock runs list --label shadow={found.id}")


def _state(run: Run | None, run_id: str | None) -> str:
    if run is None:
        return f"run {run_id}, deleted" if run_id else "no run"
    return f"{run.state} {duration(run.duration)}" if run.duration is not None else run.state


def _difference(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "equal"
    shown = [
        f"{row['step']}.{row['name']}: {_text(row['values'][0])} → {_text(row['values'][1])}" for row in rows[:_SHOWN]
    ]
    return "; ".join(shown) + (" …" if len(rows) > _SHOWN else "")


def _text(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:59] + "…"
