"""Resolves a bearer token to a principal and what it may do."""

from __future__ import annotations

import time
from collections.abc import Callable

from penstock_core import access
from penstock_core.access import Grant, Principal, Role, TokenStore
from penstock_core.errors import PenstockError
from penstock_gateway.access.oidc_users import OidcUsers


class TokenScopeError(PenstockError):
    """A token of an endpoint was used for something else. `grant` is that of the token."""

    def __init__(self, message: str, grant: Grant) -> None:
        self.grant = grant
        super().__init__(message)


class Authenticator:
    """Knows the gateway's own token, whose principal administers all projects, named tokens, and those of users.

    Keeps hashes only. Tokens of an OpenID provider have dots, the others have none.
    """

    def __init__(
        self,
        token: str,
        principal: Principal,
        store: TokenStore,
        users: OidcUsers | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._digest = access.token_digest(token)
        self._own = Grant(principal=principal, roles={access.EVERY_PROJECT: Role.ADMIN})
        self._store = store
        self._users = users
        self._clock = clock

    async def grant(self, token: str, path: str) -> Grant | None:
        """Return who acts with a token in a request for a path, and what it may do; None if the token is not valid.

        Raises:
            TokenScopeError: the token is that of an endpoint, and the path is not.
            InvalidTokenError: the token of an OpenID provider is not valid; says why.
            UnavailableError: the store, or the OpenID provider, does not respond.
        """
        digest = access.token_digest(token)
        if access.same_digest(digest, self._digest):
            return self._own
        if self._users is not None and token.count(".") == 2:
            return await self._users.grant(token, digest)
        found = await self._store.find(digest)
        if found is None or not access.same_digest(digest, found.digest) or found.expired(self._clock()):
            return None
        if found.endpoint:
            allowed = f"/v1/endpoints/{found.project}/{found.endpoint}"
            # The models of the Open Inference Protocol are the endpoints of the project that the header names.
            paths = [allowed, f"/v2/models/{found.endpoint}"]
            if path not in paths and not path.startswith(tuple(f"{one}/" for one in paths)):
                text = f"The token is limited to {allowed}: use a token of the platform for the rest"
                raise TokenScopeError(text, found.grant)
        return found.grant
