"""`penstock admin`: what keeps a platform in order."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from penstock_cli import output

app = typer.Typer(help="Keep a platform in order.", no_args_is_help=True)

_LOOK = 0.2


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
    from penstock_cli import session

    with session.connect() as connected:
        transport = connected.client.transport
        begun = transport.json("POST", "/v1/admin/rebuild")
        # A list waits for the log by itself, for a while.
        while wait and transport.json("GET", "/v1/runs", query={"limit": 1})["behind"]:
            time.sleep(_LOOK)
    if json:
        output.as_json(begun)
    else:
        output.line(f"the list of runs is {'made' if wait else 'being made'} anew from {begun['upto']} facts")
