"""`penstock versions`: registered versions of pipelines, published or experiments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from penstock_cli.arguments import Json
from penstock_cli.display import output

if TYPE_CHECKING:
    from penstock.client.pipelines import Version

app = typer.Typer(help="List registered versions of pipelines.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """List registered versions of pipelines."""


@app.command("list")
def list_versions(
    pipeline: Annotated[str | None, typer.Argument(help="Only versions of this pipeline.")] = None,
    json: Json = False,
) -> None:
    """List versions, newest first. Versions that are not published are experiments.

    PUBLISHED has the time of the last publication; `latest` marks the version that deployments and child runs use.
    """
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = sorted(connected.client.pipelines.versions(pipeline), key=lambda v: -(v.registered_at or 0.0))
    if json:
        output.as_json([_object(version) for version in found])
        return
    if not found:
        output.note("no versions: register one with `penstock register FILE`")
        return
    rows = [
        (
            version.pipeline,
            str(version.version),
            str(version.steps if version.steps is not None else ""),
            output.clock(version.registered_at),
            _published(version),
            version.source[:12],
            _commit(version.git),
        )
        for version in found
    ]
    output.table(["pipeline", "version", "steps", "registered", "published", "source", "commit"], rows)


def _object(version: Version) -> dict[str, object]:
    names = ("pipeline", "version", "digest", "source", "registered_at", "published_at", "published_by", "latest")
    return {name: getattr(version, name) for name in (*names, "git", "steps")}


def _published(version: Version) -> str:
    if not version.published:
        return "experiment"
    return f"{output.clock(version.published_at)}{' (latest)' if version.latest else ''}"


def _commit(git: dict[str, object] | None) -> str:
    if not git:
        return ""
    branch = f" ({git['branch']})" if git.get("branch") else ""
    return f"{str(git.get('commit', ''))[:12]}{branch}{', uncommitted changes' if git.get('dirty') else ''}"
