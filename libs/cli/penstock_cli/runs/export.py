"""`penstock runs export`: the history of a run as JSON lines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from penstock_cli.arguments import RunArgument, resolve_run
from penstock_cli.display import output


def export(
    name: RunArgument,
    to: Annotated[Path | None, typer.Option("--to", help="File or existing folder; default standard output.")] = None,
) -> None:
    """Export the history of a run as JSON lines.

    The history is the pipeline and all facts of the run.
    """
    # Heavy imports stay out of `--help`.
    import tempfile

    from penstock_cli.platform import session

    with session.connect() as connected, tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        client = connected.client
        path = client.runs.export(resolve_run(client, name), to if to is not None else folder)
        if to is not None:
            output.line(str(path))
            return
        # Complete before the first byte is printed: a broken connection leaves no partial history in a pipe.
        output.json_file(path)
