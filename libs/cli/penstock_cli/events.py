"""`penstock events`: send events."""

from __future__ import annotations

import dataclasses
import json as codec
from typing import Annotated, Any

import typer

from penstock_cli.arguments import Json
from penstock_cli.display import output
from penstock_cli.errors import UsageError

app = typer.Typer(help="Send events.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Send events."""


@app.command("send")
def send(
    type: Annotated[str, typer.Argument(metavar="TYPE", help="Event type, such as com.acme.labels.ready.")],
    key: Annotated[str, typer.Option("--key", help="Key that the steps wait for.")] = "",
    data: Annotated[str, typer.Option("--data", metavar="JSON", help="JSON payload of the event.")] = "{}",
    id: Annotated[str | None, typer.Option("--id", help="Identifies the event together with --source.")] = None,
    source: Annotated[str, typer.Option("--source", help="The sender of the event.")] = "penstock/cli",
    json: Json = False,
) -> None:
    """Send an event: deployments start runs for it, and steps that wait for it continue, now or later."""
    from penstock_cli.platform import session

    try:
        value: Any = codec.loads(data)
    except ValueError as error:
        raise UsageError(f"--data is not JSON: {error}") from error
    with session.connect() as connected:
        sent = connected.client.events.send(type, value, key=key, id=id, source=source)
    if json:
        output.as_json(dataclasses.asdict(sent))
        return
    output.line(f"event {sent.id} {'exists already' if sent.duplicate else 'stored'}")
