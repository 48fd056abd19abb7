"""`penstock models`: registered models, their versions, aliases and gates."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from penstock_cli.arguments import Json, RunArgument, parse_numbers, parse_pairs, resolve_run
from penstock_cli.display import output
from penstock_cli.errors import FAILED, UsageError

if TYPE_CHECKING:
    from penstock.client.models import ModelVersion
    from penstock.errors import RefusedError

app = typer.Typer(help="Manage registered models, their versions, aliases and gates.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the model.")]
Reference = Annotated[
    str, typer.Argument(metavar="MODEL", help="NAME for the latest published version, NAME@ALIAS or NAME:VERSION.")
]
Version = Annotated[int, typer.Argument(metavar="VERSION", help="Number of the version.", min=1)]
Alias = Annotated[str, typer.Argument(metavar="ALIAS", help="Alias, such as champion.")]
Reason = Annotated[str, typer.Option("--reason", help="Reason, recorded in the history.")]
Gate = Annotated[
    str,
    typer.Option("--gate", help="Gate to pass in addition to that of the alias, such as 'loss < champion.loss'."),
]
Force = Annotated[
    bool, typer.Option("--force", help="Bypass gates. Requires --reason, which is recorded in the history.")
]


@app.command("list")
def list_models(json: Json = False) -> None:
    """List registered models."""
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.models.list()
    if json:
        output.as_json([dataclasses.asdict(model) for model in found])
        return
    if not found:
        output.note("no models: register one with `penstock models register NAME RUN STEP`")
        return
    rows = [
        (
            model.name,
            str(model.versions),
            f"v{model.latest}" if model.latest else "none published" if model.experiments else "archived",
            output.clock(model.changed_at),
            " ".join(f"{alias}=v{version}" for alias, version in model.aliases.items()),
        )
        for model in found
    ]
    output.table(["name", "versions", "latest", "changed", "aliases"], rows)


@app.command("show")
def show(reference: Reference, json: Json = False) -> None:
    """Show a model or one of its versions.

    For a plain NAME, shows all versions and aliases.
    """
    from penstock_cli.display import model_tables
    from penstock_cli.platform import session

    with session.connect() as connected:
        models = connected.client.models
        if "@" in reference or ":" in reference:
            version = models.get(reference)
            if json:
                output.as_json(model_tables.as_object(version))
            else:
                model_tables.version(version)
            return
        versions, aliases = models.versions(reference), models.aliases(reference)
    if json:
        shown = [model_tables.as_object(version) for version in versions]
        output.as_json({"name": reference, "versions": shown, "aliases": [dataclasses.asdict(one) for one in aliases]})
    else:
        model_tables.model(reference, versions, aliases)


@app.command("register")
def register(
    name: Name,
    run: RunArgument,
    step: Annotated[str, typer.Argument(metavar="STEP", help="Key of the step.")],
    result: Annotated[str, typer.Option("--output", "-o", help="Name of the output or artifact.")] = "result",
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", metavar="NAME=NUMBER", help="Replaces the metrics of the step; repeatable."),
    ] = None,
    alias: Annotated[str | None, typer.Option("--alias", help="Alias for the version, if it passes the gates.")] = None,
    gate: Gate = "",
    force: Force = False,
    reason: Reason = "",
    description: Annotated[str, typer.Option("--description", help="Free text.")] = "",
    tag: Annotated[list[str] | None, typer.Option("--tag", metavar="NAME=TEXT", help="Tag; repeatable.")] = None,
    json: Json = False,
) -> None:
    """Register an output of a step as a version.

    Exits with 1 if the version fails a gate.
    """
    from penstock_cli.display import model_tables
    from penstock_cli.platform import session

    metrics = parse_numbers("--metric", metric) if metric else None
    tags = parse_pairs("--tag", tag or [])
    with session.connect() as connected:
        client = connected.client
        more: dict[str, Any] = {"alias": alias, "gate": gate, "force": force, "reason": reason}
        more |= {"description": description, "tags": tags, "metrics": metrics}
        version = client.models.register(name, resolve_run(client, run), step, result, **more)
    if json:
        output.as_json(model_tables.as_object(version))
    else:
        model_tables.registered(version, alias)
    if version.refused is not None:
        raise typer.Exit(FAILED)


@app.command("promote")
def promote(
    name: Name,
    version: Version,
    alias: Alias,
    gate: Gate = "",
    force: Force = False,
    reason: Reason = "",
    replaces: Annotated[
        int | None,
        typer.Option(
            "--replaces", metavar="VERSION", help="Only if the alias points at this version; 0: at none.", min=0
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Point an alias at a version. Idempotent. Exits with 1 if the version fails a gate."""
    from penstock.errors import RefusedError
    from penstock_cli.platform import session

    with session.connect() as connected:
        try:
            moved = connected.client.models.promote(
                name, version, alias, reason=reason, gate=gate, force=force, replaces=replaces
            )
        except RefusedError as error:
            _report_failed_gate(error, json=json)
    if json:
        output.as_json({"model": name, **dataclasses.asdict(moved)})
    else:
        output.line(f"{name}@{alias} is version {moved.version}{', gates bypassed' if moved.forced else ''}")


def _report_failed_gate(error: RefusedError, *, json: bool) -> NoReturn:
    """Print the comparisons of a failed gate and exit with 1; raise any other error."""
    clauses = [text for field, text in error.errors if field == "gate"]
    if error.status != 409 or not clauses:
        raise error
    if json:
        output.as_json({"refused": error.detail, "clauses": clauses})
    else:
        output.note(error.detail)
        for clause in clauses:
            output.note(f"  {clause}")
    raise typer.Exit(FAILED)


@app.command("delete-alias")
def delete_alias(name: Name, alias: Alias, reason: Reason = "", json: Json = False) -> None:
    """Delete an alias. Its history is kept."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        connected.client.models.delete_alias(name, alias, reason=reason)
    if json:
        output.as_json({"model": name, "alias": alias, "deleted": True})
    else:
        output.line(f"{name}@{alias} deleted")


@app.command("gate")
def gate(
    name: Name,
    alias: Alias,
    expression: Annotated[
        str | None,
        typer.Argument(metavar="[GATE]", help="Such as 'accuracy > champion.accuracy + 0.01'; omit to show the gate."),
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the gate.")] = False,
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Show, set or delete the gate of an alias.

    Every move of the alias must pass it.
    """
    from penstock_cli.platform import session

    if expression is not None and delete:
        raise UsageError("GATE and --delete exclude each other")
    if expression is not None and not expression.strip():
        raise UsageError("the gate is empty: delete it with --delete")
    with session.connect() as connected:
        models = connected.client.models
        if expression is not None or delete:
            models.set_gate(name, alias, expression or "", reason=reason)
        now = next((one.gate for one in models.aliases(name) if one.alias == alias), "")
    if json:
        output.as_json({"model": name, "alias": alias, "gate": now or None})
    else:
        output.line(f"{name}@{alias}: {now or 'no gate'}")


@app.command("archive")
def archive(name: Name, version: Version, reason: Reason = "", json: Json = False) -> None:
    """Archive a version.

    An archived version is never the latest and gets no alias. Its artifact and history are kept.
    """
    from penstock_cli.platform import session

    with session.connect() as connected:
        _print_archived(connected.client.models.archive(name, version, reason=reason), json=json)


@app.command("unarchive")
def unarchive(name: Name, version: Version, reason: Reason = "", json: Json = False) -> None:
    """Unarchive a version."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        _print_archived(connected.client.models.unarchive(name, version, reason=reason), json=json)


def _print_archived(version: ModelVersion, *, json: bool) -> None:
    from penstock_cli.display import model_tables

    if json:
        output.as_json(model_tables.as_object(version))
    else:
        output.line(f"{version.reference} {'archived' if version.archived else 'unarchived'}")


@app.command("history")
def history(name: Name, json: Json = False) -> None:
    """Show the history of a model.

    Lists every change with its time, author and reason.
    """
    from penstock_cli.display import model_tables
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.models.history(name)
    if json:
        output.as_json([dataclasses.asdict(entry) for entry in found])
    else:
        model_tables.history(found)


@app.command("get")
def get(
    reference: Reference,
    to: Annotated[Path, typer.Option("--to", help="File or existing folder to write to.")] = Path(),
    json: Json = False,
) -> None:
    """Download a version of a model."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        version = connected.client.models.get(reference)
        path = version.download(to)
    if json:
        output.as_json({"model": version.model, "version": version.version, "path": str(path.absolute())})
    else:
        output.line(str(path))
