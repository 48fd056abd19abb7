"""`penstock schedules`: cron schedules."""

from __future__ import annotations

import json as codec
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock_cli.arguments import Json, parse_pairs
from penstock_cli.display import output

if TYPE_CHECKING:
    from penstock.client.schedules import Schedule

app = typer.Typer(help="Manage cron schedules.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the schedule.")]


@app.command("list")
def list_schedules(json: Json = False) -> None:
    """List schedules."""
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.schedules.list()
    if json:
        output.as_json([_object(schedule) for schedule in found])
        return
    if not found:
        output.note("no schedules: create one with `penstock schedules apply NAME --pipeline … --cron …`")
        return
    rows = [
        (
            schedule.name,
            f"{schedule.pipeline} {f'v{schedule.version}' if schedule.version else '(latest published)'}",
            schedule.cron,
            schedule.tz,
            "paused" if schedule.paused else "active",
            " ".join(f"{key}={value}" for key, value in schedule.inputs.items()),
        )
        for schedule in found
    ]
    output.table(["name", "pipeline", "cron", "time zone", "state", "inputs"], rows)


@app.command("apply")
def apply(
    name: Name,
    pipeline: Annotated[str, typer.Option("--pipeline", help="Registered pipeline to run.")],
    cron: Annotated[str, typer.Option("--cron", help="Five or six fields, such as '0 3 * * *'.")],
    tz: Annotated[str, typer.Option("--tz", help="Time zone of the fields, such as Europe/Paris.")] = "UTC",
    version: Annotated[
        int | None,
        typer.Option("--version", help="Published version to run; default the latest at each tick."),
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option("-p", "--param", metavar="NAME=VALUE", help="Input, parsed as JSON if it is JSON; repeatable."),
    ] = None,
    paused: Annotated[bool, typer.Option("--paused", help="Create the schedule paused.")] = False,
    json: Json = False,
) -> None:
    """Create or update a schedule.

    The version must be published: see `penstock register`. Schedules fire only while a platform is running: see
    `penstock up`.
    """
    from penstock.client.schedules import Schedule
    from penstock_cli.platform import session

    inputs = {key: _value(text) for key, text in parse_pairs("-p", param or []).items()}
    wanted = Schedule(name, pipeline, cron, version, tz, inputs, paused)
    with session.connect() as connected:
        stored = connected.client.schedules.apply(wanted)
        short_lived = connected.ephemeral
    if json:
        output.as_json(_object(stored))
    else:
        runs = f"version {stored.version}" if stored.version else "latest published version"
        output.line(f"schedule {stored.name}: {stored.pipeline}, {runs}, at {stored.cron!r} {stored.tz}")
    if short_lived:
        output.note("no platform is running here, so the schedule does not fire: start one with `penstock up`")


@app.command("delete")
def delete(name: Name, json: Json = False) -> None:
    """Delete a schedule."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        connected.client.schedules.delete(name)
    if json:
        output.as_json({"name": name, "deleted": True})
    else:
        output.line(f"schedule {name} deleted")


def _value(text: str) -> Any:
    try:
        return codec.loads(text)
    except ValueError:
        return text


def _object(schedule: Schedule) -> dict[str, Any]:
    return {name: getattr(schedule, name) for name in type(schedule).__slots__}
