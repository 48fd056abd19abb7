"""`penstock artifacts`: get results out of the platform as files, and see what they look like."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from penstock_cli.display import output

app = typer.Typer(help="Get results as files, and see them.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Get results as files, and see them."""


@app.command("get")
def get(
    name: Annotated[str, typer.Argument(metavar="RUN", help="Id of the run, its first characters, or `last`.")],
    step: Annotated[str | None, typer.Option("--step", help="Key of the step; default the outputs of the run.")] = None,
    result: Annotated[str, typer.Option("--output", "-o", help="Name of the output or artifact.")] = "result",
    to: Annotated[Path, typer.Option("--to", help="File or existing folder to write to.")] = Path(),
    file: Annotated[str | None, typer.Option("--file", help="Only this file of a folder.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write an output or artifact of a run to a file."""
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session
    from penstock_cli.runs.commands import resolve

    with session.connect() as connected:
        client = connected.client
        run_id = resolve(client, name)
        path = client.artifacts.download(run_id, step, result, to, file=file)
    if json:
        output.as_json({"run_id": run_id, "step": step, "output": result, "path": str(path.absolute())})
    else:
        output.line(str(path))


@app.command("preview")
def preview(
    name: Annotated[str, typer.Argument(metavar="RUN", help="Id of the run, its first characters, or `last`.")],
    step: Annotated[str | None, typer.Option("--step", help="Key of the step; default the outputs of the run.")] = None,
    result: Annotated[str, typer.Option("--output", "-o", help="Name of the output or artifact.")] = "result",
    to: Annotated[Path | None, typer.Option("--to", help="File to write a thumbnail to.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what an output or artifact of a run looks like."""
    from penstock_cli.display import previews
    from penstock_cli.platform import session
    from penstock_cli.runs.commands import resolve

    with session.connect() as connected:
        client = connected.client
        found = client.artifacts.preview(resolve(client, name), step, result)
    if to is not None:
        previews.write_picture(found, to)
    if json:
        output.as_json(dataclasses.asdict(found))
    else:
        previews.show(found, to)


@app.command("files")
def files(
    name: Annotated[str, typer.Argument(metavar="RUN", help="Id of the run, its first characters, or `last`.")],
    step: Annotated[str | None, typer.Option("--step", help="Key of the step; default the outputs of the run.")] = None,
    result: Annotated[str, typer.Option("--output", "-o", help="Name of the output or artifact.")] = "result",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the files of an output that is a folder."""
    from penstock_cli.display.progress import size
    from penstock_cli.platform import session
    from penstock_cli.runs.commands import resolve

    with session.connect() as connected:
        run_id = resolve(connected.client, name)
        found = connected.client.artifacts.files(run_id, step, result)
    if json:
        listed = [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in found]
        output.as_json({"run_id": run_id, "step": step, "output": result, "files": listed})
        return
    for file in found:
        output.line(f"{size(file.size):>10}  {file.path}")
