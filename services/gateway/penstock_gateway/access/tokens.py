"""Named tokens: created, listed, revoked."""

from __future__ import annotations

import secrets
import time

from penstock_adapters.nats.auth.admission import publisher_inbox
from penstock_contracts.access import TokenCreated, TokenList, TokenView
from penstock_core import access, ids
from penstock_core.access import AccessToken, Role, TokenStore
from penstock_gateway.errors import ConflictError, NotFoundError


class Tokens:
    """Changes the token store."""

    def __init__(self, store: TokenStore) -> None:
        self._store = store

    async def list(self, project: str, endpoint: str = "", *, every: bool = False) -> TokenList:
        """Return the tokens of an endpoint, or the named ones of a project; with `every`, those of all projects."""
        used = await self._store.last_used()
        found = await self._store.list(endpoint and f"{project}/{endpoint}")
        mine = [token for token in found if every or token.project == project]
        return TokenList(tokens=[_view(token, used.get(token.full_name)) for token in mine])

    async def create(
        self,
        name: str,
        by: str,
        project: str,
        *,
        role: Role | None = None,
        endpoint: str = "",
        publisher: bool = False,
        expires_in: float | None = None,
    ) -> TokenCreated:
        """Create a token of 256 random bits: with a role in a project, for an endpoint alone, or for events alone.

        Args:
            name: of the token.
            by: the principal that creates it.
            project: to which it is limited; `EVERY_PROJECT`: to none.
            role: in the project; None for a token of an endpoint or of a publisher.
            endpoint: the deployment whose endpoint is all that it may use.
            publisher: whether it may only send events.
            expires_in: seconds until it is refused; None: never.

        Raises:
            ConflictError: the name is in use.
        """
        text, now = secrets.token_urlsafe(32), time.time()
        token = AccessToken(
            name=name,
            digest=access.token_digest(text),
            created_at=now,
            created_by=by,
            project=project,
            role=role,
            endpoint=endpoint,
            publisher=publisher,
            expires_at=None if expires_in is None else now + expires_in,
        )
        if token.full_name == access.DEFAULT_TOKEN or not await self._store.create(token):
            raise ConflictError(f"A token named {name!r} exists", "choose another name, or revoke that token first")
        inbox = publisher_inbox(token) if publisher else None
        return TokenCreated(**_view(token).model_dump(), token=text, inbox_prefix=inbox)

    async def revoke(self, name: str, project: str, endpoint: str = "", *, every: bool = False) -> None:
        """Delete a token of an endpoint or of a project; requests with it are refused from now on.

        Args:
            name: of the token.
            project: whose token it is.
            endpoint: the deployment whose endpoint is all that it may use.
            every: whether it may be the token of another project, or of all.

        Raises:
            NotFoundError: it does not exist.
        """
        known = await self._store.get(name) if ids.is_name(name) and not endpoint else None
        allowed = bool(endpoint) or (known is not None and (every or known.project == project))
        path = endpoint and f"{project}/{endpoint}"
        if not (ids.is_name(name) and allowed and await self._store.revoke(name, path)):
            command = f"penstock deployments tokens list {endpoint}" if endpoint else "penstock tokens list"
            raise NotFoundError(f"Token {name[:100]!r} does not exist", f"list tokens with `{command}`")

    async def revoke_all(self, project: str, endpoint: str) -> None:
        """Delete all tokens of an endpoint."""
        path = f"{project}/{endpoint}"
        for token in await self._store.list(path):
            await self._store.revoke(token.name, path)


def _view(token: AccessToken, used_at: float | None = None) -> TokenView:
    # What is recorded of an older token of the same name is not the use of this one.
    last_used = used_at if used_at is not None and used_at >= token.created_at else None
    return TokenView(
        name=token.name,
        principal=str(token.principal),
        project=token.project,
        role=access.PUBLISHER if token.publisher else token.role,
        created_at=token.created_at,
        created_by=token.created_by,
        expires_at=token.expires_at,
        last_used_at=last_used,
    )
