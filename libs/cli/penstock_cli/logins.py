"""`penstock login`, `logout` and `users`: people whose tokens an OpenID Connect provider issues."""

from __future__ import annotations

import contextlib
import os
from typing import Annotated

import typer

from penstock_cli.arguments import Json
from penstock_cli.display import output
from penstock_cli.errors import UsageError

app = typer.Typer(help="Block and unblock users.", no_args_is_help=True)

Url = Annotated[str | None, typer.Argument(metavar="[URL]", help="URL of the platform; default: PENSTOCK_URL.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the user, without `user:`.")]


def login(url: Url = None) -> None:
    """Log in with a browser, on this or another device. The token is stored for later commands."""
    # Heavy imports stay out of `--help`.
    from penstock.client import device_login, logins
    from penstock.client.client import Client

    started = device_login.start(_url(url))
    output.note(f"open {started.complete_url or started.verification_url} and confirm the code {started.user_code}")
    found = started.wait()
    logins.save(found)
    who = Client(found.url, found.token).whoami()
    output.line(f"logged in to {found.url} as {who.principal}")
    if not who.roles:
        output.note("you have no role: none of your groups is in PENSTOCK_OIDC_ROLES of the platform")


def logout(url: Url = None) -> None:
    """Revoke the token of `penstock login` and remove it from this machine."""
    from penstock.client import logins
    from penstock.client.client import Client
    from penstock.errors import ClientError

    found = logins.load(_url(url))
    if found is None:
        raise UsageError(f"not logged in to {_url(url)}: log in with `penstock login`")
    logins.delete(found.url)
    try:
        Client(found.url, found.token, patience=5.0).transport.json("POST", "/v1/logout")
    except ClientError as error:
        output.note(f"note: the token was removed here, but the platform did not revoke it: {error}")
    if found.refresh_token and found.revocation_url:
        with contextlib.suppress(ClientError):
            logins.post(found.revocation_url, {"token": found.refresh_token, "client_id": found.client_id})
    output.line(f"logged out of {found.url}")


@app.command("list")
def list_users(json: Json = False) -> None:
    """List blocked users."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        rows = connected.client.transport.json("GET", "/v1/blocked-users")["users"]
    if json:
        output.as_json(rows)
    elif not rows:
        output.note("no blocked users")
    else:
        output.table(["name", "blocked", "by"], [(row["name"], output.clock(row["at"]), row["by"]) for row in rows])


@app.command("block")
def block(name: Name, json: Json = False) -> None:
    """Block a user: their tokens are refused, and their deployments start no runs."""
    _change("PUT", name, json)
    if not json:
        output.line(f"user {name} blocked")


@app.command("unblock")
def unblock(name: Name, json: Json = False) -> None:
    """Accept the tokens of a user again."""
    _change("DELETE", name, json)
    if not json:
        output.line(f"user {name} unblocked")


def _change(method: str, name: str, json: bool) -> None:
    from urllib.parse import quote

    from penstock_cli.platform import session

    with session.connect() as connected:
        connected.client.transport.json(method, f"/v1/blocked-users/{quote(name, safe='')}")
    if json:
        output.as_json({"name": name, "blocked": method == "PUT"})


def _url(given: str | None) -> str:
    url = (given or os.environ.get("PENSTOCK_URL", "")).strip().rstrip("/")
    if not url:
        raise UsageError("which platform: give its URL, or set PENSTOCK_URL")
    return url
