"""Resolves a bearer token to a principal."""

from __future__ import annotations

from penstock_core import access
from penstock_core.access import Principal, TokenStore
from penstock_core.errors import PenstockError
from penstock_gateway.project import PROJECT


class TokenScopeError(PenstockError):
    """A token of an endpoint was used for something else."""


class Authenticator:
    """Knows the gateway's own token and the named tokens of the store; keeps hashes only."""

    def __init__(self, token: str, principal: Principal, store: TokenStore) -> None:
        self._digest = access.token_digest(token)
        self._principal = principal
        self._store = store

    async def principal(self, token: str, path: str) -> Principal | None:
        """Return who acts with a token in a request for a path; None if the token is not valid.

        Raises:
            TokenScopeError: the token is that of an endpoint, and the path is not.
            UnavailableError: the store does not respond.
        """
        digest = access.token_digest(token)
        if access.same_digest(digest, self._digest):
            return self._principal
        found = await self._store.find(digest)
        if found is None or not access.same_digest(digest, found.digest):
            return None
        if found.endpoint:
            allowed = f"/v1/endpoints/{PROJECT}/{found.endpoint}"
            if path != allowed and not path.startswith(f"{allowed}/"):
                raise TokenScopeError(f"The token is limited to {allowed}: use a token of the platform for the rest")
        return found.principal
