"""`penstock events`: send and list events."""

from __future__ import annotations

import dataclasses
import json as codec
from typing import Annotated, Any

import typer

from penstock_cli import event_types
from penstock_cli.arguments import Json
from penstock_cli.display import output
from penstock_cli.errors import UsageError

app = typer.Typer(help="Send and list events.", no_args_is_help=True)
app.add_typer(event_types.app, name="types")


@app.callback()
def group() -> None:
    """Send and list events."""


@app.command("list")
def list_events(
    type: Annotated[str, typer.Option("--type", help="Only of this type, or prefix such as com.acme.*.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="Maximum number of events.")] = 20,
    json: Json = False,
) -> None:
    """List stored events, newest first."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.events.list(type, limit=limit)
    if json:
        output.as_json([dataclasses.asdict(event) for event in found])
        return
    if not found:
        output.note("no events: send one with `penstock events send TYPE`")
        return
    rows = [
        (str(event.sequence), output.clock(event.received_at), event.type, event.source, event.id, event.subject)
        for event in found
    ]
    output.table(["event", "received", "type", "source", "id", "subject"], rows)


@app.command("tail")
def tail(
    type: Annotated[str, typer.Option("--type", help="Only of this type, or prefix such as com.acme.*.")] = "",
    json: Json = False,
) -> None:
    """Print events as they are stored, until interrupted."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        for event in connected.client.events.follow(type):
            if json:
                output.json_line(dataclasses.asdict(event))
            else:
                about = f" {event.subject}" if event.subject else ""
                data = codec.dumps(event.data, ensure_ascii=False)
                time = output.clock(event.received_at)
                output.line(f"{event.sequence}  {time}  {event.type} from {event.source}, id {event.id}{about}  {data}")
            output.flush()


@app.command("show")
def show(
    event: Annotated[str, typer.Argument(metavar="EVENT", help="Digest or sequence of the event.")], json: Json = False
) -> None:
    """Show an event."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        found, _ = connected.client.events.explain(event)
    if json:
        output.as_json(dataclasses.asdict(found))
        return
    for name in ("type", "source", "id", "time", "subject", "digest"):
        if getattr(found, name):
            output.line(f"{name}: {getattr(found, name)}")
    for name, value in found.extensions.items():
        output.line(f"{name}: {value}")
    output.line(codec.dumps(found.data, indent=2))


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
    output.line(f"event {sent.sequence} {'was stored before' if sent.duplicate else 'stored'}, id {sent.id}")
