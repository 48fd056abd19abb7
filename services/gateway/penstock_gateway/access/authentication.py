"""Resolves a bearer token to a principal and what it may do."""

from __future__ import annotations

import time
from collections.abc import Callable

from penstock_core import access
from penstock_core.access import Grant, Principal, Role, TokenStore
from penstock_core.errors import PenstockError


class TokenScopeError(PenstockError):
    """A token of an endpoint was used for something else."""


class Authenticator:
    """Knows the gateway's own token, whose principal administers all projects, and the named tokens of the store.

    Keeps hashes only.
    """

    def __init__(
        self, token: str, principal: Principal, store: TokenStore, clock: Callable[[], float] = time.time
    ) -> None:
        self._digest = access.token_digest(token)
        self._own = Grant(principal=principal, roles={access.EVERY_PROJECT: Role.ADMIN})
        self._store = store
        self._clock = clock

    async def grant(self, token: str, path: str) -> Grant | None:
        """Return who acts with a token in a request for a path, and what it may do; None if the token is not valid.

        Raises:
            TokenScopeError: the token is that of an endpoint, and the path is not.
            UnavailableError: the store does not respond.
        """
        digest = access.token_digest(token)
        if access.same_digest(digest, self._digest):
            return self._own
        found = await self._store.find(digest)
        if found is None or not access.same_digest(digest, found.digest) or found.expired(self._clock()):
            return None
        if found.endpoint:
            allowed = f"/v1/endpoints/{found.project}/{found.endpoint}"
            if path != allowed and not path.startswith(f"{allowed}/"):
                raise TokenScopeError(f"The token is limited to {allowed}: use a token of the platform for the rest")
        return found.grant
