"""`penstock models`: registered models, their versions, aliases and gates."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from penstock_cli import failures
from penstock_cli.arguments import parse_numbers, parse_pairs
from penstock_cli.display import output
from penstock_cli.failures import UsageError

if TYPE_CHECKING:
    from penstock.client.errors import RefusedError
    from penstock.client.models import ModelVersion

app = typer.Typer(help="Registered models, their versions, aliases and gates.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the model.")]
Reference = Annotated[
    str, typer.Argument(metavar="MODEL", help="NAME for the latest version, NAME@ALIAS or NAME:NUMBER.")
]
Number = Annotated[int, typer.Argument(metavar="VERSION", help="Number of the version.", min=1)]
Alias = Annotated[str, typer.Argument(metavar="ALIAS", help="Such as champion.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the history.")]
Gate = Annotated[
    str, typer.Option("--gate", help="What it has to pass, besides the alias's own gate: 'loss < champion.loss'.")
]
Force = Annotated[bool, typer.Option("--force", help="Pass the gates by; takes --reason, and the history says so.")]


@app.command("list")
def list_models(json: Json = False) -> None:
    """List all registered models."""
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
            f"v{model.latest}" if model.latest else "archived",
            output.clock(model.changed_at),
            " ".join(f"{alias}=v{version}" for alias, version in model.aliases.items()),
        )
        for model in found
    ]
    output.table(["name", "versions", "latest", "changed", "aliases"], rows)


@app.command("show")
def show(reference: Reference, json: Json = False) -> None:
    """Show a version of a model; with a plain NAME, all versions and aliases."""
    from penstock_cli.display import model_tables
    from penstock_cli.platform import session

    with session.connect() as connected:
        client = connected.client
        if "@" in reference or ":" in reference:
            version = client.models.get(reference)
            if json:
                output.as_json(model_tables.as_object(version))
            else:
                model_tables.version(version)
            return
        versions, aliases = client.models.versions(reference), client.models.aliases(reference)
    if json:
        shown = [model_tables.as_object(version) for version in versions]
        output.as_json({"name": reference, "versions": shown, "aliases": [dataclasses.asdict(one) for one in aliases]})
    else:
        model_tables.model(reference, versions, aliases)


@app.command("register")
def register(
    name: Name,
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id of the run, its first characters, or `last`.")],
    step: Annotated[str, typer.Argument(metavar="STEP", help="Key of the step that gave it.")],
    result: Annotated[str, typer.Option("--output", "-o", help="Name of the output or artifact.")] = "result",
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", metavar="NAME=NUMBER", help="Instead of what the step logged; repeatable."),
    ] = None,
    alias: Annotated[str | None, typer.Option("--alias", help="An alias for it, if it passes the gates.")] = None,
    gate: Gate = "",
    force: Force = False,
    reason: Reason = "",
    description: Annotated[str, typer.Option("--description", help="For people.")] = "",
    tag: Annotated[list[str] | None, typer.Option("--tag", metavar="NAME=TEXT", help="Repeatable.")] = None,
    json: Json = False,
) -> None:
    """Register an output of a step as the next version of a model."""
    from penstock_cli.display import model_tables
    from penstock_cli.platform import session
    from penstock_cli.runs.commands import resolve

    metrics = parse_numbers("--metric", metric) if metric else None
    tags = parse_pairs("--tag", tag or [])
    with session.connect() as connected:
        client = connected.client
        more: dict[str, Any] = {"alias": alias, "gate": gate, "force": force, "reason": reason}
        more |= {"description": description, "tags": tags, "metrics": metrics}
        version = client.models.register(name, resolve(client, run), step, result, **more)
    if json:
        output.as_json(model_tables.as_object(version))
    else:
        model_tables.registered(version, alias)
    if version.refused is not None:
        raise typer.Exit(failures.FAILED)


@app.command("promote")
def promote(
    name: Name,
    version: Number,
    alias: Alias,
    gate: Gate = "",
    force: Force = False,
    reason: Reason = "",
    replaces: Annotated[
        int | None,
        typer.Option("--replaces", metavar="VERSION", help="Only if the alias stands for this now; 0: nothing.", min=0),
    ] = None,
    json: Json = False,
) -> None:
    """Have an alias stand for a version. Ends with 1 where the version does not pass a gate."""
    from penstock.client.errors import RefusedError
    from penstock_cli.platform import session

    with session.connect() as connected:
        try:
            moved = connected.client.models.promote(
                name, version, alias, reason=reason, gate=gate, force=force, replaces=replaces
            )
        except RefusedError as error:
            _report_gate_refusal(error, json=json)
    if json:
        output.as_json({"model": name, **dataclasses.asdict(moved)})
    else:
        output.line(f"{name}@{alias} is version {moved.version}{', its gate passed by' if moved.forced else ''}")


def _report_gate_refusal(error: RefusedError, *, json: bool) -> NoReturn:
    """A gate that refuses is an answer: each comparison, and exit code 1. All else is an error."""
    clauses = [text for field, text in error.errors if field == "gate"]
    if error.status != 409 or not clauses:
        raise error
    if json:
        output.as_json({"refused": error.title, "clauses": clauses})
    else:
        output.note(error.title)
        for clause in clauses:
            output.note(f"  {clause}")
    raise typer.Exit(failures.FAILED)


@app.command("remove-alias")
def delete_alias(name: Name, alias: Alias, reason: Reason = "", json: Json = False) -> None:
    """Have an alias stand for nothing. Its history stays."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        connected.client.models.delete_alias(name, alias, reason=reason)
    if json:
        output.as_json({"model": name, "alias": alias, "removed": True})
    else:
        output.line(f"{name}@{alias} is removed")


@app.command("gate")
def gate(
    name: Name,
    alias: Alias,
    expression: Annotated[
        str | None,
        typer.Argument(metavar="[GATE]", help="Such as 'accuracy > champion.accuracy + 0.01'; default show it."),
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Have no gate any more.")] = False,
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Show or set what every move of an alias has to pass."""
    from penstock_cli.platform import session

    if expression is not None and remove:
        raise UsageError("a gate is set or removed: leave one of the two out")
    if expression is not None and not expression.strip():
        raise UsageError("the gate is empty: --remove removes it")
    with session.connect() as connected:
        client = connected.client
        if expression is not None or remove:
            client.models.set_gate(name, alias, expression or "", reason=reason)
        now = next((one.gate for one in client.models.aliases(name) if one.alias == alias), "")
    if json:
        output.as_json({"model": name, "alias": alias, "gate": now or None})
    else:
        output.line(f"{name}@{alias}: {now or 'no gate'}")


@app.command("archive")
def archive(
    name: Name,
    version: Number,
    reason: Reason = "",
    undo: Annotated[bool, typer.Option("--undo", help="Offer it again.")] = False,
    json: Json = False,
) -> None:
    """Offer a version no more. Its artifact and its history stay."""
    from penstock_cli.display import model_tables
    from penstock_cli.platform import session

    with session.connect() as connected:
        models = connected.client.models
        found = (models.unarchive if undo else models.archive)(name, version, reason=reason)
    if json:
        output.as_json(model_tables.as_object(found))
    else:
        output.line(f"{found.reference} is {'archived' if found.archived else 'offered again'}")


@app.command("history")
def history(name: Name, json: Json = False) -> None:
    """Show all that happened to a model: what, who, when, why."""
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
    """Write a version of a model to a file."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        version: ModelVersion = connected.client.models.get(reference)
        path = version.download(to)
    if json:
        output.as_json({"model": version.model, "version": version.version, "path": str(path.absolute())})
    else:
        output.line(str(path))
