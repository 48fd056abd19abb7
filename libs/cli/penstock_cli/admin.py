"""`penstock admin`: what keeps a platform in order."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from penstock_cli.display import output

app = typer.Typer(help="Keep a platform in order.", no_args_is_help=True)

_POLL_INTERVAL = 0.2


@app.callback()
def group() -> None:
    """Keep a platform in order."""


@app.command("rebuild")
def rebuild(
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return when everything is there again.")] = True,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make the list of runs, and what can be searched in it, anew from the log."""
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    with session.connect() as connected:
        transport = connected.client.transport
        rebuild_status = transport.json("POST", "/v1/admin/rebuild")
        # A list waits for the log by itself, for a while.
        while wait and transport.json("GET", "/v1/runs", query={"limit": 1})["lag"]:
            time.sleep(_POLL_INTERVAL)
    if json:
        output.as_json(rebuild_status)
    else:
        output.line(f"the list of runs is {'made' if wait else 'being made'} anew from {rebuild_status['upto']} facts")
