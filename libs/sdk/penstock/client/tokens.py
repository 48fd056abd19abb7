"""Named access tokens of a platform: `Client.tokens`."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from penstock.client import views
from penstock.client.http.transport import Transport


@dataclass(frozen=True, slots=True)
class Principal:
    """Who acts with a token, such as `user:ada` or `token:ci`."""

    principal: str
    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Token:
    """A named token.

    Attributes:
        principal: who acts with it, `token:NAME`; runs and changes are recorded under it.
        created_by: the principal that created it.
        token: the token itself; only after `Tokens.create`, since the platform stores its hash.
    """

    name: str
    principal: str
    created_at: float = 0.0
    created_by: str = ""
    token: str | None = None

    def __repr__(self) -> str:
        return f"Token({self.name!r})"


class Tokens:
    """`Client.tokens`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> list[Token]:
        """Return all named tokens by name."""
        return [views.build(Token, row) for row in self._transport.json("GET", "/v1/tokens")["tokens"]]

    def create(self, name: str) -> Token:
        """Create a token. Store its `token` at once: it cannot be read again.

        Raises:
            RefusedError: the name is taken or not valid.
        """
        return views.build(Token, self._transport.json("POST", "/v1/tokens", body={"name": name}))

    def revoke(self, name: str) -> None:
        """Revoke a token: requests with it are refused from now on.

        Raises:
            NotFoundError: there is no token of this name.
        """
        self._transport.json("DELETE", f"/v1/tokens/{quote(name, safe='')}")
