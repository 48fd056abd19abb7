"""`penstock builds`: builds of versions from Git repositories, and of environments."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from penstock_cli.arguments import Json
from penstock_cli.display import output
from penstock_cli.errors import FAILED, UsageError

if TYPE_CHECKING:
    from penstock.client.builds import Build
    from penstock.client.client import Client

app = typer.Typer(help="List, show, follow and cancel builds of versions and environments.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="BUILD", help="Id of the build as listed, or `last`.")]

_DIGITS = 12


@app.callback()
def group() -> None:
    """List, show, follow and cancel builds of versions and environments."""


@app.command("list")
def list_builds(json: Json = False) -> None:
    """List builds, newest first."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.builds.list()
    if json:
        output.as_json([_fields(one) for one in found])
        return
    if not found:
        output.note("no builds: `penstock register git+https://…` builds a version from a Git repository")
        return
    rows = [
        (short_id(one), one.source, one.state, _result(one), one.commit[:_DIGITS], output.clock(one.requested_at))
        for one in found
    ]
    output.table(["build", "source", "state", "result", "commit", "requested"], rows, states="state")


@app.command("show")
def show(build: Id, json: Json = False) -> None:
    """Show a build: its source, commit, state and result."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = _find(connected.client, build)
    if json:
        output.as_json(_fields(found))
        return
    facts = {
        "build": found.id,
        "source": found.source,
        "state": found.state,
        "commit": found.commit,
        "result": _result(found),
        "requested": f"{output.clock(found.requested_at)} by {found.requested_by}",
        "took": f"{found.seconds:.1f} s" if found.seconds else "",
    }
    for name, value in facts.items():
        if value:
            output.line(f"{name:<10} {value}")
    for warning in found.warnings:
        output.line(f"warning: {warning}")
    if found.error:
        output.line(f"error: {found.error}")


@app.command("log")
def log(
    build: Id,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Wait for further lines until the build ends.")
    ] = False,
) -> None:
    """Print the log of a build. With --follow, exit with 1 unless the build succeeds."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        client = connected.client
        found = _find(client, build)
        after = 0
        while True:
            page = client.builds.get(found.id, after=after, wait=20 if follow else 0)
            after = page.after
            for line in page.log:
                output.line(line)
            if not page.log and (page.state != "building" or not follow):
                break
    if follow and page.state != "ready":
        output.note(f"the build {page.state}: {page.error}" if page.state == "failed" else page.error)
        raise typer.Exit(FAILED)


@app.command("cancel")
def cancel(build: Id) -> None:
    """Cancel a build that has not ended."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.builds.cancel(_find(connected.client, build).id)
    output.line(f"cancelled build {short_id(found)} of {found.source}")


def short_id(build: Build) -> str:
    """Return the id of a build with the first digits of its digest, as lists show it."""
    kind, digest, number = build.id.split("-")
    return f"{kind}-{digest[:_DIGITS]}-{number}"


def _find(client: Client, name: str) -> Build:
    """Return the build with an id, a shortened id, or the newest one."""
    if len(name) > 70:
        return client.builds.get(name)
    builds = client.builds.list()
    found = builds[:1] if name == "last" else [one for one in builds if short_id(one) == name]
    if not found:
        raise UsageError(f"there is no build {name!r}: `penstock builds list` lists them")
    return client.builds.get(found[0].id)


def _result(build: Build) -> str:
    if build.version is not None:
        return f"{build.pipeline} v{build.version}"
    return build.environment[:_DIGITS]


def _fields(build: Build) -> dict[str, object]:
    found = dataclasses.asdict(build)
    return {name: value for name, value in found.items() if name not in ("log", "after")}
