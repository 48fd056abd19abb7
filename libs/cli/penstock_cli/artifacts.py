"""`penstock artifacts`: download, preview and trace outputs and artifacts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock_cli.arguments import Json, RunArgument, resolve_run
from penstock_cli.display import output

if TYPE_CHECKING:
    from penstock.client.artifacts.lineage import LineageAttempt, NamedArtifact

app = typer.Typer(help="Download, preview and trace outputs and artifacts.", no_args_is_help=True)

Step = Annotated[str | None, typer.Option("--step", help="Key of the step; default the outputs of the run.")]
Output = Annotated[str, typer.Option("--output", "-o", help="Name of the output or artifact.")]


@app.command("get")
def get(
    run: RunArgument,
    step: Step = None,
    result: Output = "result",
    to: Annotated[Path, typer.Option("--to", help="File or existing folder to write to.")] = Path(),
    file: Annotated[str | None, typer.Option("--file", help="Only this file of a folder.")] = None,
    json: Json = False,
) -> None:
    """Download an output or artifact of a run."""
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    with session.connect() as connected:
        client = connected.client
        run_id = resolve_run(client, run)
        path = client.artifacts.download(run_id, step, result, to, file=file)
    if json:
        output.as_json({"run_id": run_id, "step": step, "output": result, "path": str(path.absolute())})
    else:
        output.line(str(path))


@app.command("preview")
def preview(
    run: RunArgument,
    step: Step = None,
    result: Output = "result",
    to: Annotated[Path | None, typer.Option("--to", help="File to write the thumbnail of an image to.")] = None,
    json: Json = False,
) -> None:
    """Preview an output or artifact of a run."""
    from penstock_cli.display import previews
    from penstock_cli.platform import session

    with session.connect() as connected:
        client = connected.client
        found = client.artifacts.preview(resolve_run(client, run), step, result)
    if to is not None:
        previews.write_picture(found, to)
    if json:
        output.as_json(dataclasses.asdict(found))
    else:
        previews.show(found, to)


@app.command("files")
def files(run: RunArgument, step: Step = None, result: Output = "result", json: Json = False) -> None:
    """List the files of an output that is a folder."""
    from penstock_cli.display.formats import size
    from penstock_cli.platform import session

    with session.connect() as connected:
        run_id = resolve_run(connected.client, run)
        found = connected.client.artifacts.files(run_id, step, result)
    if json:
        listed = [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in found]
        output.as_json({"run_id": run_id, "step": step, "output": result, "files": listed})
        return
    for file in found:
        output.line(f"{size(file.size):>10}  {file.path}")


@app.command("lineage")
def lineage(
    sha256: Annotated[str, typer.Argument(metavar="SHA256", help="Digest of the artifact.")], json: Json = False
) -> None:
    """Show the lineage of an artifact.

    Lists the attempts that produced it and those that used it, nearest first.
    """
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.artifacts.lineage(sha256)
    if json:
        output.as_json(dataclasses.asdict(found))
        return
    output.line(f"{sha256[:16]}  {found.filename or found.format}, {found.size} B")
    for title, attempts in (("produced by", found.up), ("used by", found.down)):
        if attempts:
            output.line(title)
            for attempt in attempts:
                output.line(f"{'  ' * attempt.level}{attempt.key or 'the run'}  {_describe(attempt)}")
    if not found.whole:
        output.note("the lineage has more attempts than are shown")


def _describe(attempt: LineageAttempt) -> str:
    source = f", source {attempt.source[:12]}" if attempt.source else ""
    flow = f"{_names(attempt.reads) or 'no artifacts'} -> {_names(attempt.makes) or 'no artifacts'}"
    return f"{flow}  ({attempt.pipeline} v{attempt.version}, run {attempt.run_id}{source})"


def _names(artifacts: Iterable[NamedArtifact]) -> str:
    return ", ".join(f"{artifact.name} {artifact.sha256[:8]}" for artifact in artifacts)
