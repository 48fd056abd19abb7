"""Named tokens: created, listed, revoked."""

from __future__ import annotations

import secrets
import time

from penstock_contracts.access import TokenCreated, TokenList, TokenView
from penstock_core import access, ids
from penstock_core.access import AccessToken, TokenStore
from penstock_gateway.errors import ConflictError, NotFoundError


class Tokens:
    """Changes the token store."""

    def __init__(self, store: TokenStore) -> None:
        self._store = store

    async def list(self, endpoint: str = "") -> TokenList:
        """Return the tokens of an endpoint, or the named tokens of the platform."""
        return TokenList(tokens=[_view(token) for token in await self._store.list(endpoint)])

    async def create(self, name: str, by: str, endpoint: str = "") -> TokenCreated:
        """Create a token of 256 random bits, for an endpoint alone or for the platform.

        Raises:
            ConflictError: the name is in use.
        """
        text = secrets.token_urlsafe(32)
        token = AccessToken(
            name=name, digest=access.token_digest(text), created_at=time.time(), created_by=by, endpoint=endpoint
        )
        if token.full_name == access.DEFAULT_TOKEN or not await self._store.create(token):
            raise ConflictError(f"A token named {name!r} exists", "choose another name, or revoke that token first")
        return TokenCreated(**_view(token).model_dump(), token=text)

    async def revoke(self, name: str, endpoint: str = "") -> None:
        """Delete a token of an endpoint or of the platform; requests with it are refused from now on.

        Raises:
            NotFoundError: it does not exist.
        """
        if not ids.is_name(name) or not await self._store.revoke(name, endpoint):
            command = f"penstock deployments tokens list {endpoint}" if endpoint else "penstock admin tokens list"
            raise NotFoundError(f"Token {name[:100]!r} does not exist", f"list tokens with `{command}`")

    async def revoke_all(self, endpoint: str) -> None:
        """Delete all tokens of an endpoint."""
        for token in await self._store.list(endpoint):
            await self._store.revoke(token.name, endpoint)


def _view(token: AccessToken) -> TokenView:
    return TokenView(
        name=token.name, principal=str(token.principal), created_at=token.created_at, created_by=token.created_by
    )
