"""`penstock versions`: registered versions of pipelines, published or experiments."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from penstock_cli.arguments import Json
from penstock_cli.display import output
from penstock_cli.display.formats import plural
from penstock_cli.errors import UsageError
from penstock_cli.runs import published

if TYPE_CHECKING:
    from penstock.client.pipelines import Version

app = typer.Typer(help="List, compare and download versions of pipelines.", no_args_is_help=True)

VersionName = Annotated[
    str, typer.Argument(metavar="PIPELINE[@VERSION]", help="Default: the latest published version.")
]


@app.callback()
def group() -> None:
    """List, compare and download versions of pipelines."""


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


@app.command("diff")
def diff(
    before: VersionName,
    after: VersionName,
    code: Annotated[bool, typer.Option("--code", help="Only the code, as a unified diff.")] = False,
    json: Json = False,
) -> None:
    """Compare two versions: their code as a unified diff, the compiled pipeline, and the environments.

    Environments without a name are those that the versions were registered from.
    """
    from penstock_cli.platform import session

    with session.connect() as connected:
        pipelines = connected.client.pipelines
        found = pipelines.diff(*(published.of(connected.client, name) for name in (before, after)))
    if json:
        output.as_json(dataclasses.asdict(found))
        return
    for text in found.code.splitlines():
        output.line(text)
    if code:
        return
    for title, changes in (("pipeline", found.pipeline), ("environment", found.environment)):
        if changes:
            output.table([title, "before", "after"], [(one.name, one.before, one.after) for one in changes])
    if found.empty:
        output.note("nothing differs but places in files")


@app.command("get")
def get(
    version: VersionName,
    to: Annotated[str, typer.Option("--to", metavar="FOLDER", help="Where to; default: PIPELINE-vN.")] = "",
) -> None:
    """Download the source of a version into a new folder."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = published.of(connected.client, version)
        folder = to or f"{found.pipeline}-v{found.version}"
        try:
            names = connected.client.pipelines.download(found, folder)
        except FileExistsError as error:
            raise UsageError(f"{error}: choose another folder with --to") from error
    output.line(f"{folder}: {plural(len(names), 'file')} of {found.pipeline} v{found.version}")


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
