"""`penstock whoami` and `penstock tokens`: who acts, and named access tokens."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock_cli.arguments import Json, parse_duration
from penstock_cli.display import output
from penstock_cli.errors import UsageError

if TYPE_CHECKING:
    from penstock.client.tokens import Token

_ROLES = ("viewer", "operator", "editor", "admin", "publisher")

app = typer.Typer(help="Manage named access tokens.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the token.")]
Expires = Annotated[
    str | None,
    typer.Option("--expires", metavar="DURATION", help="Time until it is refused, such as 90d; default: never."),
]


def whoami(json: Json = False) -> None:
    """Show the principal that runs and changes of this command are recorded under, and its roles."""
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.whoami()
    if json:
        output.as_json(dataclasses.asdict(found))
        return
    output.line(found.principal)
    for project, role in found.roles.items():
        output.line(f"{role} of {'all projects' if project == '*' else f'project {project}'}")


@app.command("list")
def list_tokens(json: Json = False) -> None:
    """List the named tokens."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.tokens.list()
    rows = [without_token(token) for token in found]
    if json:
        output.as_json(rows)
    elif not found:
        output.note("no named tokens: create one with `penstock tokens create NAME --role ROLE`")
    else:
        columns = ["name", "role", "created", "created by", "expires", "last used"]
        lines = [(one.name, _role(one), *times(one)) for one in found]
        output.table(columns, lines)


@app.command("create")
def create(
    name: Name,
    role: Annotated[
        str, typer.Option("--role", metavar="ROLE", help="viewer, operator, editor, admin, or publisher of events.")
    ],
    expires: Expires = None,
    all_projects: Annotated[
        bool, typer.Option("--all-projects", help="Give the role in all projects, not in the current one.")
    ] = False,
    json: Json = False,
) -> None:
    """Create a token and print it. The platform stores only its hash, so it cannot be shown again."""
    from penstock_cli.platform import session

    if role not in _ROLES:
        raise UsageError(f"--role: expected one of {', '.join(_ROLES)}; got {role!r}")
    expires_in = parse_duration(expires) if expires else None
    with session.connect() as connected:
        token = connected.client.tokens.create(name, role, expires_in=expires_in, all_projects=all_projects)
    if json:
        output.as_json(dataclasses.asdict(token))
        return
    output.line(token.token or "")
    if token.inbox_prefix:
        output.note(f"NATS clients connect with this token and the inbox prefix {token.inbox_prefix}")


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


def _role(token: Token) -> str:
    """Return the role as in `PENSTOCK_OIDC_ROLES`: with its project, unless that is the default one."""
    return f"{token.role or ''}@{token.project}" if token.project != "default" else token.role or ""


def without_token(token: Token) -> dict[str, Any]:
    """Return the fields of a listed token, which has no `token`."""
    return {name: value for name, value in dataclasses.asdict(token).items() if name != "token"}


def times(token: Token) -> tuple[str, str, str, str]:
    """Return the columns of when and by whom a token was created, when it expires, and when it was used last."""
    expires = output.clock(token.expires_at) or "never"
    return output.clock(token.created_at), token.created_by, expires, output.clock(token.last_used_at) or "never"
