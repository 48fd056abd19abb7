"""`penstock events`: send events to waiting steps."""

from __future__ import annotations

import dataclasses
import json as codec
from typing import Annotated, Any

import typer

from penstock_cli.arguments import Json
from penstock_cli.display import output
from penstock_cli.errors import UsageError

app = typer.Typer(help="Send events to waiting steps.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Send events to waiting steps."""


@app.command("send")
def send(
    type: Annotated[str, typer.Argument(metavar="TYPE", help="Event type, such as com.acme.labels.ready.")],
    key: Annotated[str, typer.Option("--key", help="Key that the steps wait for.")] = "",
    data: Annotated[
        str, typer.Option("--data", metavar="JSON", help="JSON payload delivered to the waiting steps.")
    ] = "{}",
    id: Annotated[str | None, typer.Option("--id", help="Idempotency key of the event, valid for a day.")] = None,
    json: Json = False,
) -> None:
    """Send an event to the steps that wait for it, now or later in runs that exist already."""
    from penstock_cli.platform import session

    try:
        value: Any = codec.loads(data)
    except ValueError as error:
        raise UsageError(f"--data is not JSON: {error}") from error
    with session.connect() as connected:
        sent = connected.client.events.send(type, value, key=key, id=id, source="penstock events send")
    if json:
        output.as_json(dataclasses.asdict(sent))
        return
    output.line(f"event {sent.id} {'exists already' if sent.duplicate else 'stored'}")
    for run_id, step in sent.delivered_to:
        output.line(f"delivered to step {step} of run {run_id}")
