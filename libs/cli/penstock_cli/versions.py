"""`penstock versions`: registered versions of pipelines."""

from __future__ import annotations

from typing import Annotated

import typer

from penstock_cli.arguments import Json
from penstock_cli.display import output

app = typer.Typer(help="List registered versions of pipelines.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """List registered versions of pipelines."""


@app.command("list")
def list_versions(
    pipeline: Annotated[str | None, typer.Argument(help="Only versions of this pipeline.")] = None,
    json: Json = False,
) -> None:
    """List versions, newest first."""
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = sorted(connected.client.pipelines.versions(pipeline), key=lambda v: -(v.registered_at or 0.0))
    if json:
        names = ("pipeline", "version", "digest", "source", "registered_at", "git", "steps")
        output.as_json([{name: getattr(version, name) for name in names} for version in found])
        return
    if not found:
        output.note("no versions: register one with `penstock run FILE`")
        return
    rows = [
        (
            version.pipeline,
            str(version.version),
            str(version.steps if version.steps is not None else ""),
            output.clock(version.registered_at),
            version.source[:12],
            _commit(version.git),
        )
        for version in found
    ]
    output.table(["pipeline", "version", "steps", "registered", "source", "commit"], rows)


def _commit(git: dict[str, object] | None) -> str:
    if not git:
        return ""
    branch = f" ({git['branch']})" if git.get("branch") else ""
    return f"{str(git.get('commit', ''))[:12]}{branch}{', uncommitted changes' if git.get('dirty') else ''}"
