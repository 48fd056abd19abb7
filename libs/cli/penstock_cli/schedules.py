"""`penstock schedules`: when pipelines run by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock_cli.display import output
from penstock_cli.failures import UsageError

if TYPE_CHECKING:
    from penstock.client.schedules import Schedule

app = typer.Typer(help="When pipelines run by themselves.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the schedule.")]


@app.command("list")
def list_schedules(json: Json = False) -> None:
    """List all schedules."""
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.schedules.list()
    if json:
        output.as_json([_object(schedule) for schedule in found])
        return
    if not found:
        output.note("no schedules: make one with `penstock schedules put NAME --pipeline … --cron …`")
        return
    rows = [
        (
            s.name,
            f"{s.pipeline} {f'v{s.version}' if s.version else '(latest)'}",
            s.cron,
            s.tz,
            "paused" if s.paused else "active",
            " ".join(f"{key}={value}" for key, value in s.inputs.items()),
        )
        for s in found
    ]
    output.table(["name", "pipeline", "cron", "time zone", "state", "inputs"], rows)


@app.command("put")
def put(
    name: Name,
    pipeline: Annotated[str, typer.Option("--pipeline", help="Registered pipeline to run.")],
    cron: Annotated[str, typer.Option("--cron", help="Five or six fields, such as '0 3 * * *'.")],
    tz: Annotated[str, typer.Option("--tz", help="Time zone of the fields, such as Europe/Paris.")] = "UTC",
    version: Annotated[
        int | None, typer.Option("--version", help="Version to run; default the latest at each tick.")
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option("-p", "--param", metavar="NAME=VALUE", help="Input; JSON where it reads as JSON."),
    ] = None,
    paused: Annotated[bool, typer.Option("--paused", help="Keep it without firing.")] = False,
    json: Json = False,
) -> None:
    """Make a schedule, or replace the one of this name.

    A schedule fires only while a platform is up: see `penstock up`.
    """
    from penstock.client.schedules import Schedule
    from penstock_cli.platform import session

    wanted = Schedule(name, pipeline, cron, version, tz, _inputs(param or []), paused)
    with session.connect() as connected:
        stored = connected.client.schedules.apply(wanted)
        short_lived = connected.embedded is not None and connected.embedded.embedded
    if json:
        output.as_json(_object(stored))
    else:
        output.line(f"schedule {stored.name}: {stored.pipeline} at {stored.cron!r} {stored.tz}")
    if short_lived:
        output.note("no platform is up here: the schedule fires only while one is; start it with `penstock up`")


@app.command("delete")
def delete(name: Name, json: Json = False) -> None:
    """Remove a schedule."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        connected.client.schedules.delete(name)
    if json:
        output.as_json({"name": name, "deleted": True})
    else:
        output.line(f"schedule {name} removed")


def _inputs(given: list[str]) -> dict[str, Any]:
    import json as codec

    inputs: dict[str, Any] = {}
    for item in given:
        name, equals, text = item.partition("=")
        if not equals:
            raise UsageError(f"-p {item!r} is not of the form name=value")
        try:
            inputs[name] = codec.loads(text)
        except ValueError:
            inputs[name] = text
    return inputs


def _object(schedule: Schedule) -> dict[str, Any]:
    return {name: getattr(schedule, name) for name in type(schedule).__slots__}
