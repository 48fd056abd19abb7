"""`penstock limits`: concurrency limits."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Annotated

import typer

from penstock_cli.arguments import Json
from penstock_cli.display import output
from penstock_cli.display.formats import plural

if TYPE_CHECKING:
    from penstock.client.client import Client
    from penstock.client.limits import Limit, SlotHolder
    from penstock_core.pipeline.ir import Pipeline

app = typer.Typer(help="Manage concurrency limits.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the limit; pool:NAME for the size of a pool.")]


@app.command("list")
def list_limits(json: Json = False) -> None:
    """List the limits that are set or in use."""
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
    output.table(["name", "slots", "in use", "waiting"], rows)


@app.command("show")
def show(name: Name, json: Json = False) -> None:
    """Show the holders of a limit and its queue, next first."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        limit = connected.client.limits.get(name)
    if json:
        output.as_json(dataclasses.asdict(limit))
        return
    output.line(f"limit {limit.name}: {_slots_text(limit)}, {limit.in_use} in use, {limit.waiting} waiting")
    rows = [("in use", *_row(holder), "") for holder in limit.holders]
    rows += [("waiting", *_row(waiter), f"{waiter.effective:.1f}") for waiter in limit.waiters]
    if rows:
        output.table(["state", "run", "step", "for", "priority"], rows)


@app.command("set")
def set_limit(
    name: Name,
    slots: Annotated[int, typer.Argument(metavar="SLOTS", help="Number of slots.", min=0)],
    json: Json = False,
) -> None:
    """Set the number of slots of a limit. Overrides the numbers that steps state."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        limit = connected.client.limits.set(name, slots)
    if json:
        output.as_json(_summary(limit))
    else:
        output.line(f"limit {limit.name}: {_slots_text(limit)}")


@app.command("unset")
def unset(name: Name, json: Json = False) -> None:
    """Remove the setting of a limit. The numbers that steps state apply again."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        connected.client.limits.unset(name)
    if json:
        output.as_json({"name": name, "deleted": True})
    else:
        output.line(f"limit {name} unset")


def warn_unknown_limits(client: Client, pipeline: Pipeline) -> None:
    """Warn of steps that will fail because neither they nor the platform state the slots of their limit."""
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
                output.note(f"warning: step {step!r} will fail: limit {name!r} is not set: {advice}")


def _summary(limit: Limit) -> dict[str, object]:
    return {name: getattr(limit, name) for name in ("name", "slots", "in_use", "waiting", "more_waiting")}


def _slots(limit: Limit) -> str:
    return "by step" if limit.slots is None else str(limit.slots)


def _slots_text(limit: Limit) -> str:
    if limit.slots is None:
        return "slots as each step states"
    return plural(limit.slots, "slot")


def _row(holder: SlotHolder) -> tuple[str, str, str]:
    step = f"{holder.step} ({holder.attempt})" if holder.step else "(the run)"
    seconds = f"{max(0.0, time.time() - holder.since):.0f} s"
    return holder.run_id, step, f"{seconds} (cancel requested)" if holder.cancel_requested else seconds
