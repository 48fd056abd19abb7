"""`penstock deployments tokens`: tokens that may only call the endpoint of a deployment."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from penstock_cli import tokens
from penstock_cli.arguments import Json, parse_duration
from penstock_cli.display import output

app = typer.Typer(help="Manage the tokens of an endpoint.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the deployment.")]
TokenName = Annotated[str, typer.Argument(metavar="TOKEN", help="Name of the token.")]


@app.command("list")
def list_tokens(name: Name, json: Json = False) -> None:
    """List the tokens of an endpoint."""
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.deployments.tokens(name)
    rows = [tokens.without_token(token) for token in found]
    if json:
        output.as_json(rows)
    elif not found:
        output.note(f"no tokens: create one with `penstock deployments tokens create {name} TOKEN`")
    else:
        columns = ["name", "principal", "created", "created by", "expires", "last used"]
        lines = [(one.name, one.principal, *tokens.times(one)) for one in found]
        output.table(columns, lines)


@app.command("create")
def create(name: Name, token: TokenName, expires: tokens.Expires = None, json: Json = False) -> None:
    """Create a token for the endpoint of a deployment and print it. It cannot be shown again."""
    from penstock_cli.platform import session

    expires_in = parse_duration(expires) if expires else None
    with session.connect() as connected:
        made = connected.client.deployments.create_token(name, token, expires_in=expires_in)
    if json:
        output.as_json(dataclasses.asdict(made))
    else:
        output.line(made.token or "")


@app.command("revoke")
def revoke(name: Name, token: TokenName, json: Json = False) -> None:
    """Revoke a token of an endpoint. Requests with it are refused from now on."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        connected.client.deployments.revoke_token(name, token)
    if json:
        output.as_json({"deployment": name, "name": token, "revoked": True})
    else:
        output.line(f"token {token} of {name} revoked")
