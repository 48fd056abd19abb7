"""`penstock dead-letters`: rejected events, notifications that were not accepted, and unreadable messages."""

from __future__ import annotations

import dataclasses
import json as codec
from typing import Annotated

import typer

from penstock_cli.arguments import Json
from penstock_cli.display import output

app = typer.Typer(help="List, replay and discard messages that failed.", no_args_is_help=True)

Id = Annotated[int, typer.Argument(metavar="ID", help="Id of the dead letter.")]


@app.command("list")
def list_dead_letters(
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="Maximum number of dead letters.")] = 20,
    json: Json = False,
) -> None:
    """List dead letters, newest first."""
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.dead_letters.list(limit=limit)
    if json:
        output.as_json([dataclasses.asdict(one) for one in found])
        return
    if not found:
        output.note("no dead letters")
        return
    rows = [
        (
            str(one.id),
            output.clock(one.at),
            one.kind,
            one.type or one.subject,
            f"{one.deployment} / {one.trigger}" if one.deployment else one.service,
            one.error,
        )
        for one in found
    ]
    output.table(["id", "stored", "kind", "message", "by", "error"], rows)


@app.command("show")
def show(id: Id, json: Json = False) -> None:
    """Show a dead letter with its message."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.dead_letters.get(id)
    if json:
        output.as_json(dataclasses.asdict(found))
        return
    for name in ("kind", "subject", "event", "deployment", "trigger", "error"):
        if getattr(found, name):
            output.line(f"{name}: {getattr(found, name)}")
    for name, value in found.headers.items():
        output.line(f"{name}: {value}")
    output.line(codec.dumps(found.data, indent=2) if found.text is None else found.text)


@app.command("replay")
def replay(id: Id, json: Json = False) -> None:
    """Send an event or a notification again: an event to the trigger that rejected it, as the deployment is now."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        event = connected.client.dead_letters.replay(id)
    if json:
        output.as_json({"event": event})
        return
    if not event:
        output.line(f"dead letter {id} replayed: the notification is sent again")
        return
    output.line(f"dead letter {id} replayed as event {event}: penstock triggers explain {event}")


@app.command("discard")
def discard(id: Id) -> None:
    """Remove a dead letter."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        connected.client.dead_letters.discard(id)
    output.line(f"dead letter {id} discarded")
