"""`penstock whoami` and `penstock admin tokens`: who acts, and named access tokens."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from penstock_cli.arguments import Json
from penstock_cli.display import output

app = typer.Typer(help="Manage named access tokens.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the token.")]


def whoami(json: Json = False) -> None:
    """Show the principal that runs and changes of this command are recorded under."""
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.whoami()
    if json:
        output.as_json(dataclasses.asdict(found))
    else:
        output.line(found.principal)


@app.command("list")
def list_tokens(json: Json = False) -> None:
    """List the named tokens."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.tokens.list()
    rows = [{name: value for name, value in dataclasses.asdict(token).items() if name != "token"} for token in found]
    if json:
        output.as_json(rows)
    elif not found:
        output.note("no named tokens: create one with `penstock admin tokens create NAME`")
    else:
        lines = [(token.name, token.principal, output.clock(token.created_at), token.created_by) for token in found]
        output.table(["name", "principal", "created", "created by"], lines)


@app.command("create")
def create(name: Name, json: Json = False) -> None:
    """Create a token and print it. The platform stores only its hash, so it cannot be shown again."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        token = connected.client.tokens.create(name)
    if json:
        output.as_json(dataclasses.asdict(token))
    else:
        output.line(token.token or "")


@app.command("revoke")
def revoke(name: Name, json: Json = False) -> None:
    """Revoke a token. Requests with it are refused from now on."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        connected.client.tokens.revoke(name)
    if json:
        output.as_json({"name": name, "revoked": True})
    else:
        output.line(f"token {name} revoked")
