"""`penstock events types`: JSON Schemas of types of events."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from penstock_cli.arguments import Json, read_object
from penstock_cli.display import output

app = typer.Typer(help="Manage the JSON Schemas of types of events.", no_args_is_help=True)

Type = Annotated[str, typer.Argument(metavar="TYPE", help="Event type, such as com.acme.labels.ready.")]


@app.command("list")
def list_types(json: Json = False) -> None:
    """List the types of events that have a schema."""
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.events.types.list()
    if json:
        output.as_json([dataclasses.asdict(one) for one in found])
    elif not found:
        output.note("no types of events: register one with `penstock events types set TYPE FILE`")
    else:
        rows = [(one.type, ", ".join(one.schema.get("properties") or ()), one.by, one.description) for one in found]
        output.table(["type", "fields", "by", "description"], rows)


@app.command("show")
def show(type: Type, json: Json = False) -> None:
    """Show the schema of a type of events."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.events.types.get(type)
    output.as_json(dataclasses.asdict(found) if json else found.schema)


@app.command("set")
def set_type(
    type: Type,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON Schema of the data; - for standard input.")],
    description: Annotated[str, typer.Option("--description", help="What the events are about.")] = "",
    json: Json = False,
) -> None:
    """Register a type of events: from now on, events of this type must fit the schema."""
    from penstock_cli.platform import session

    schema = read_object(file, "a JSON Schema as an object")
    with session.connect() as connected:
        found = connected.client.events.types.set(type, schema, description=description)
    if json:
        output.as_json(dataclasses.asdict(found))
    else:
        output.line(f"event type {found.type} registered")


@app.command("delete")
def delete(type: Type, json: Json = False) -> None:
    """Delete a type of events: its events are not checked any more."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        connected.client.events.types.delete(type)
    if json:
        output.as_json({"type": type, "deleted": True})
    else:
        output.line(f"event type {type} deleted")
