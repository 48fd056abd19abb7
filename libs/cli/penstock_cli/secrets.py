"""`penstock secrets`: secrets that steps and deployments refer to by name. No command prints a value."""

from __future__ import annotations

import dataclasses
import getpass
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock_cli.arguments import Json
from penstock_cli.display import output
from penstock_cli.display.formats import plural
from penstock_cli.errors import UsageError
from penstock_core.secrets import records
from penstock_core.secrets.records import SecretError

if TYPE_CHECKING:
    from penstock.client.secrets import Secret

app = typer.Typer(help="Manage secrets that steps and deployments refer to by name.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the secret.")]
Pipelines = Annotated[
    list[str] | None, typer.Option("--pipeline", metavar="NAME", help="Pipeline whose steps may use it. Repeatable.")
]
Deployments = Annotated[
    list[str] | None,
    typer.Option(
        "--deployment", metavar="NAME", help="Deployment whose webhooks and notifications may use it. Repeatable."
    ),
]


@app.command("list")
def list_secrets(json: Json = False) -> None:
    """List the secrets, without their values."""
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.secrets.list()
    if json:
        output.as_json([dataclasses.asdict(one) for one in found])
    elif not found:
        output.note("no secrets: set one with `penstock secrets set NAME`")
    else:
        rows = [
            (one.name, one.source, _version(one), _users(one), output.clock(one.last_used_at) or "never")
            for one in found
        ]
        output.table(["name", "source", "version", "used by", "last used"], rows)


@app.command("show")
def show(name: Name, json: Json = False) -> None:
    """Show a secret: its versions, who may use it, its last use. Its values cannot be shown."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.secrets.get(name)
    if json:
        output.as_json(dataclasses.asdict(found))
        return
    output.line(f"secret {found.name}, source {found.source}; may be used by {_users(found)}")
    last = output.clock(found.last_used_at)
    output.line(f"last used {last} by {found.last_used_by}" if last else "not used yet")
    if found.versions:
        rows = [(str(one.number), output.clock(one.created_at), one.created_by) for one in found.versions]
        output.table(["version", "created", "created by"], rows)


@app.command("set")
def set_secret(
    name: Name,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="Read the value from a file.", dir_okay=False)
    ] = None,
    json: Json = False,
) -> None:
    """Set a secret: standard input, --file or a prompt gives the value. Adds a version if it exists.

    One line break at the end of standard input is not part of the value.
    """
    from penstock_cli.platform import session

    value = _value(file)
    # The first command in a folder may be this one.
    with session.ensure_platform(steps=False) as embedded:
        found = session.open_session(embedded).client.secrets.set(name, value)
    if json:
        output.as_json(dataclasses.asdict(found))
    else:
        output.line(f"secret {found.name} has version {found.versions[-1].number}")


@app.command("allow")
def allow(name: Name, pipelines: Pipelines = None, deployments: Deployments = None, json: Json = False) -> None:
    """Limit a secret to pipelines and deployments. Without options, the whole project may use it."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.secrets.allow(name, pipelines=pipelines or [], deployments=deployments or [])
    if json:
        output.as_json(dataclasses.asdict(found))
    else:
        output.line(f"secret {found.name} may be used by {_users(found)}")


@app.command("delete")
def delete(
    name: Name,
    version: Annotated[
        int | None, typer.Option("--version", metavar="N", min=1, help="Delete this version only.")
    ] = None,
    json: Json = False,
) -> None:
    """Delete a secret, or one version. Steps that start later and use it fail."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        connected.client.secrets.delete(name, version)
    if json:
        output.as_json({"name": name, "version": version, "deleted": True})
    else:
        output.line(f"version {version} of secret {name} deleted" if version else f"secret {name} deleted")


@app.command("rotate-key")
def rotate_key(
    drop_old: Annotated[
        bool,
        typer.Option("--drop-old", help="Remove the old keys from the key file. Backups made before need them."),
    ] = False,
    json: Json = False,
) -> None:
    """Encrypt all stored secrets with a new key. Repeat it after an interruption."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.secrets.rotate_key(drop_old=drop_old)
    if json:
        output.as_json(dataclasses.asdict(found))
        return
    key = "a new key" if found.new_key else "the first key of the read-only key file"
    output.line(f"{plural(found.encrypted, 'value')} encrypted with {key}, {found.keys[0]}")
    if found.unreadable:
        output.note(
            f"{plural(found.unreadable, 'value')} need a key that is not in the key file: restore it, or set them again"
        )
    if found.dropped:
        output.line(f"{plural(found.dropped, 'old key')} removed")


def _value(file: Path | None) -> str:
    """Read a value, which must not be an argument: those are in the shell's history and visible to other processes.

    Raises:
        UsageError: it cannot be read, or cannot be a secret.
    """
    try:
        if file is not None:
            text = _text(file.read_bytes())
        elif sys.stdin.isatty():
            text = getpass.getpass("Value (not shown): ")
        else:
            text = _text(sys.stdin.buffer.read(records.VALUE_LIMIT + 3)).removesuffix("\n").removesuffix("\r")
        return records.check_value(text)
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError:
        # `from None`: the error has the value.
        raise UsageError("the value is not UTF-8: encode binary data with Base64") from None
    except SecretError as error:
        raise UsageError(str(error)) from error


def _text(data: bytes) -> str:
    return data.decode()


def _version(secret: Secret) -> str:
    return str(secret.versions[-1].number) if secret.versions else ""


def _users(secret: Secret) -> str:
    named = [f"pipeline {one}" for one in secret.pipelines] + [f"deployment {one}" for one in secret.deployments]
    return ", ".join(named) or "the whole project"
