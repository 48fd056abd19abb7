"""Resolves a bearer token to a principal."""

from __future__ import annotations

from penstock_core import access
from penstock_core.access import Principal, TokenStore


class Authenticator:
    """Knows the gateway's own token and the named tokens of the store; keeps hashes only."""

    def __init__(self, token: str, principal: Principal, store: TokenStore) -> None:
        self._digest = access.token_digest(token)
        self._principal = principal
        self._store = store

    async def principal(self, token: str) -> Principal | None:
        """Return who acts with a token; None if it is not valid.

        Raises:
            UnavailableError: the store does not respond.
        """
        digest = access.token_digest(token)
        if access.same_digest(digest, self._digest):
            return self._principal
        found = await self._store.find(digest)
        return found.principal if found is not None and access.same_digest(digest, found.digest) else None
