"""Named access tokens of a platform: `Client.tokens`."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import quote

from penstock.client import views
from penstock.client.http.transport import Transport


@dataclass(frozen=True, slots=True)
class Principal:
    """Who acts with a token, such as `user:ada` or `token:ci`.

    Attributes:
        roles: by project: `viewer`, `operator`, `editor` or `admin`. The project `*` is all projects.
    """

    principal: str
    kind: str
    name: str
    roles: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Token:
    """A named token. Times are Unix seconds.

    Attributes:
        principal: who acts with it, `token:NAME`; runs and changes are recorded under it.
        project: to which it is limited; `*`: all.
        role: in the project; None for a token that may only call an endpoint.
        expires_at: when it is refused; None: never.
        last_used_at: when it was used last, about to the minute; None: not yet.
        created_by: the principal that created it.
        token: the token itself; only after `Tokens.create`, since the platform stores its hash.
        inbox_prefix: of a NATS client that connects with a new token of a publisher.
    """

    name: str
    principal: str
    project: str = ""
    role: str | None = None
    created_at: float = 0.0
    created_by: str = ""
    expires_at: float | None = None
    last_used_at: float | None = None
    token: str | None = None
    inbox_prefix: str | None = None

    def __repr__(self) -> str:
        return f"Token({self.name!r})"


class Tokens:
    """`Client.tokens`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> list[Token]:
        """Return all named tokens by name."""
        return [views.build(Token, row) for row in self._transport.json("GET", "/v1/tokens")["tokens"]]

    def create(self, name: str, role: str, *, expires_in: float | None = None, all_projects: bool = False) -> Token:
        """Create a token. Store its `token` at once: it cannot be read again.

        Args:
            name: of the token.
            role: `viewer`, `operator`, `editor` or `admin`, or `publisher`: it may only send events, over HTTP or NATS.
            expires_in: seconds until it is refused; None: never.
            all_projects: whether the role is in all projects, not in that of the client.

        Raises:
            RefusedError: the name is taken or not valid, or there is no such role.
        """
        body = {"name": name, "role": role, "expires_in": expires_in, "all_projects": all_projects}
        return views.build(Token, self._transport.json("POST", "/v1/tokens", body=body))

    def revoke(self, name: str) -> None:
        """Revoke a token: requests with it are refused from now on.

        Raises:
            NotFoundError: there is no token of this name.
        """
        self._transport.json("DELETE", f"/v1/tokens/{quote(name, safe='')}")
