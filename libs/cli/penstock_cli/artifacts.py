"""`penstock artifacts`: get results out of the platform as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from penstock_cli import output

app = typer.Typer(help="Get results as files.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Get results as files."""


@app.command("get")
def get(
    name: Annotated[str, typer.Argument(metavar="RUN", help="Id of the run, its first characters, or `last`.")],
    step: Annotated[str | None, typer.Option("--step", help="Key of the step; default the outputs of the run.")] = None,
    result: Annotated[str, typer.Option("--output", "-o", help="Name of the output or artifact.")] = "result",
    to: Annotated[Path, typer.Option("--to", help="File or existing folder to write to.")] = Path(),
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write an output or artifact of a run to a file."""
    # Heavy imports stay out of `--help`.
    from penstock_cli import session
    from penstock_cli.runs import resolve

    with session.connect() as connected:
        client = connected.client
        run_id = resolve(client, name)
        path = client.download(run_id, step, result, to)
    if json:
        output.as_json({"run_id": run_id, "step": step, "output": result, "path": str(path.absolute())})
    else:
        output.line(str(path))
