"""`penstock limits`: how many steps may run at the same time."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Annotated

import typer

from penstock_cli.display import output

if TYPE_CHECKING:
    from penstock.client.client import Client
    from penstock.client.limits import Limit, SlotHolder
    from penstock_core.pipeline.ir import Pipeline

app = typer.Typer(help="How many steps may run at the same time.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the limit; pool:NAME for the size of a pool.")]


@app.command("list")
def list_limits(json: Json = False) -> None:
    """List all limits that are set or in use."""
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.limits.list()
    if json:
        output.as_json([_summary(limit) for limit in found])
        return
    if not found:
        output.note("no limits: set one with `penstock limits set NAME SLOTS`")
        return
    rows = [
        (limit.name, _slots(limit), str(limit.in_use), f"{limit.waiting}{'+' if limit.more_waiting else ''}")
        for limit in found
    ]
    output.table(["name", "slots", "in_use", "waiting"], rows)


@app.command("show")
def show(name: Name, json: Json = False) -> None:
    """Show who holds the slots of a limit, and who waits, the next first."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        limit = connected.client.limits.get(name)
    if json:
        output.as_json(dataclasses.asdict(limit))
        return
    output.line(f"limit {limit.name}: {_slots_text(limit)}, {limit.in_use} held, {limit.waiting} waiting")
    rows = [("holds", *_row(place), "") for place in limit.holders]
    rows += [("waits", *_row(place), f"{place.effective:.1f}") for place in limit.waiters]
    if rows:
        output.table(["", "run", "step", "for", "priority"], rows)


@app.command("set")
def set_limit(
    name: Name,
    slots: Annotated[int, typer.Argument(metavar="SLOTS", help="How many steps may run at the same time.", min=0)],
    json: Json = False,
) -> None:
    """Set how many slots a limit has, instead of what steps say."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        limit = connected.client.limits.set(name, slots)
    if json:
        output.as_json(_summary(limit))
    else:
        output.line(f"limit {limit.name}: {_slots_text(limit)}")


@app.command("remove")
def unset(name: Name, json: Json = False) -> None:
    """Remove what a limit is set to: steps say their own number again."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        connected.client.limits.unset(name)
    if json:
        output.as_json({"name": name, "removed": True})
    else:
        output.line(f"limit {name} removed")


def warn_unknown_limits(client: Client, pipeline: Pipeline) -> None:
    """Say which steps of a compiled pipeline will fail because nobody says how many slots their limit has."""
    named = {
        spec.concurrency: spec.name
        for spec in pipeline.steps.values()
        if spec.concurrency is not None and spec.concurrency_max is None
    }
    if named:
        known = {limit.name for limit in client.limits.list() if limit.slots is not None}
        for name, step in sorted(named.items()):
            if name not in known:
                advice = f'set it with `penstock limits set {name} SLOTS`, or write concurrency="{name}:2"'
                output.note(f"warning: step {step!r} will fail: the limit {name!r} is not known here: {advice}")


def _summary(limit: Limit) -> dict[str, object]:
    return {name: getattr(limit, name) for name in ("name", "slots", "in_use", "waiting", "more_waiting")}


def _slots(limit: Limit) -> str:
    return "by step" if limit.slots is None else str(limit.slots)


def _slots_text(limit: Limit) -> str:
    if limit.slots is None:
        return "slots as each step says"
    return f"{limit.slots} slot{'' if limit.slots == 1 else 's'}"


def _row(place: SlotHolder) -> tuple[str, str, str]:
    step = f"{place.step} ({place.attempt})" if place.step else "(the run)"
    return (
        place.run_id,
        step,
        f"{max(0.0, time.time() - place.since):.0f} s{' (cancel_requested)' if place.cancel_requested else ''}",
    )
