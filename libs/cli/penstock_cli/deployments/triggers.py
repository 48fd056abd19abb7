"""`penstock triggers`: what triggers decided on events, or would decide."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from penstock_cli.arguments import Json, read_object
from penstock_cli.deployments import replay
from penstock_cli.deployments.group import print_decisions
from penstock_cli.display import output

app = typer.Typer(help="Explain and test how triggers handle events.", no_args_is_help=True)


@app.command("explain")
def explain(
    event: Annotated[str, typer.Argument(metavar="EVENT", help="Digest or sequence of the event.")],
    deployment: Annotated[
        str | None, typer.Argument(metavar="[DEPLOYMENT]", help="Only the decision of this deployment.")
    ] = None,
    json: Json = False,
) -> None:
    """Show how each deployment handled an event: its run, or the part of a filter that was false."""
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    with session.connect() as connected:
        found, decisions = connected.client.events.explain(event, deployment)
    if json:
        output.as_json(
            {"event": dataclasses.asdict(found), "decisions": [dataclasses.asdict(one) for one in decisions]}
        )
        return
    output.line(f"event {found.sequence}: {found.type} from {found.source}, id {found.id}")
    if not decisions:
        output.note("no deployment takes events of this type")
    print_decisions(decisions)


@app.command("test")
def test(
    deployment: Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="Name of the deployment.")],
    event: Annotated[Path, typer.Option("--event", metavar="FILE", help="CloudEvent as JSON; - for standard input.")],
    json: Json = False,
) -> None:
    """Show how a deployment would handle an event. Nothing is stored, no run starts."""
    from penstock_cli.platform import session

    given = read_object(event, "a CloudEvent as a JSON object")
    with session.connect() as connected:
        decisions = connected.client.deployments.test(deployment, given)
    if json:
        output.as_json([dataclasses.asdict(one) for one in decisions])
        return
    if not decisions:
        output.note(f"no trigger of deployment {deployment} takes events of type {given.get('type')!r}")
    print_decisions(decisions)


app.command("replay")(replay.replay)
