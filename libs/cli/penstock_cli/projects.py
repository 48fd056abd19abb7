"""`penstock projects`: projects and their quotas."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from penstock_cli.arguments import Json
from penstock_cli.display import output
from penstock_cli.display.formats import size

if TYPE_CHECKING:
    from penstock.client.projects import Project

app = typer.Typer(help="Manage projects and their quotas.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the project.")]


@app.command("list")
def list_projects(json: Json = False) -> None:
    """List the projects in which you have a role."""
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.projects.list()
    if json:
        output.as_json([dataclasses.asdict(one) for one in found])
    else:
        rows = [(one.name, _state(one), output.clock(one.created_at or None), one.created_by) for one in found]
        output.table(["name", "state", "created", "created by"], rows)


@app.command("show")
def show(name: Name, json: Json = False) -> None:
    """Show a project and its quotas."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.projects.get(name)
    _print(found, json=json)


@app.command("create")
def create(
    name: Name,
    artifact_bytes: Annotated[
        int | None, typer.Option("--artifact-bytes", metavar="N", min=1, help="Size of the largest artifact in bytes.")
    ] = None,
    events: Annotated[
        float | None, typer.Option("--events", metavar="N", help="Events per second, also of webhooks.")
    ] = None,
    json: Json = False,
) -> None:
    """Create a project, or replace the quotas of one that exists. Without an option, it has no quota."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        made = connected.client.projects.create(
            name,
            artifact_bytes=artifact_bytes,
            events_per_second=events,
        )
    _print(made, json=json)


@app.command("archive")
def archive(name: Name, json: Json = False) -> None:
    """Archive a project: it can be read only, and nothing runs in it."""
    _archive(name, archived=True, json=json)


@app.command("unarchive")
def unarchive(name: Name, json: Json = False) -> None:
    """Unarchive a project."""
    _archive(name, archived=False, json=json)


def _archive(name: str, *, archived: bool, json: bool) -> None:
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.projects.archive(name, archived=archived)
    _print(found, json=json)


def _print(found: Project, *, json: bool) -> None:
    if json:
        output.as_json(dataclasses.asdict(found))
        return
    created = f", created at {output.clock(found.created_at)} by {found.created_by}" if found.created_at else ""
    output.line(f"project {found.name}: {_state(found)}{created}")
    for name, value in found.quotas.items():
        if value is not None:
            output.line(f"  {name.replace('_', ' ')}: {size(int(value)) if name.endswith('bytes') else f'{value:g}'}")


def _state(found: Project) -> str:
    return "active" if found.archived_at is None else "archived"
