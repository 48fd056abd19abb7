"""People with tokens of an OpenID Connect provider: their names, and their roles by the groups they are in."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock_core import access, ids
from penstock_core.access import Grant, InvalidTokenError, Principal, PrincipalKind, Revocations, Role
from penstock_core.errors import InvalidIdError, PenstockError

if TYPE_CHECKING:
    from penstock_adapters.oidc import OidcVerifier

FRESH = 0.5
"""Seconds for which a token is not looked up among the revoked ones again."""

_VERIFIED = 60.0
"""Seconds for which a token is not verified again: the provider may withdraw its key."""

_LIMIT = 10_000


class InvalidRolesError(PenstockError):
    """The setting that gives groups their roles is invalid."""


@dataclass(frozen=True, slots=True)
class OidcRules:
    """How claims become a principal and its roles.

    Attributes:
        name_claim: the claim with the name of the user.
        groups_claim: the claim with the list of groups.
        roles: project and role by group; the project is `access.EVERY_PROJECT` for a role in all projects.
    """

    name_claim: str
    groups_claim: str
    roles: Mapping[str, tuple[str, Role]]

    def grant(self, claims: Mapping[str, Any]) -> Grant:
        """Return the user of a token, with the highest role of its groups in each project.

        Raises:
            InvalidTokenError: the token has no name, or one that its user has not proven to own.
        """
        name = claims.get(self.name_claim)
        if not isinstance(name, str) or not name:
            raise InvalidTokenError(f"it has no claim {self.name_claim!r}, the name of the user")
        if self.name_claim == "email" and claims.get("email_verified") is not True:
            raise InvalidTokenError("its email address is not verified")
        try:
            principal = Principal(PrincipalKind.USER, name)
        except InvalidIdError as error:
            raise InvalidTokenError(f"the name of its user is invalid: {error}") from error
        groups = claims.get(self.groups_claim)
        found: dict[str, Role] = {}
        for group in [groups] if isinstance(groups, str) else groups if isinstance(groups, list) else []:
            if isinstance(group, str) and group in self.roles:
                project, role = self.roles[group]
                found[project] = max(found.get(project, role), role, key=access.ROLES.index)
        return Grant(principal=principal, roles=found)


def parse_roles(given: Mapping[str, str]) -> dict[str, tuple[str, Role]]:
    """Parse `{"ml-team": "editor", "guests": "viewer@demo"}`: roles in all projects, or in one.

    Raises:
        InvalidRolesError: there is no such role, or the name of a project is invalid.
    """
    found: dict[str, tuple[str, Role]] = {}
    for group, text in given.items():
        role, at, project = text.partition("@")
        if role not in access.ROLES or (at and not ids.is_name(project)):
            raise InvalidRolesError(
                f"PENSTOCK_OIDC_ROLES: group {group!r} has {text!r}: use ROLE or ROLE@PROJECT, "
                f"where ROLE is one of {', '.join(access.ROLES)}"
            )
        found[group] = (project if at else access.EVERY_PROJECT, Role(role))
    return found


@dataclass(slots=True)
class _Verified:
    grant: Grant
    expires_at: float
    verified_at: float
    checked_at: float = float("-inf")


class OidcUsers:
    """Resolves tokens of the provider; verified ones are cached, by digest."""

    def __init__(
        self,
        verifier: OidcVerifier,
        rules: OidcRules,
        revocations: Revocations,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._verifier = verifier
        self._rules = rules
        self._revocations = revocations
        self._clock = clock
        self._known: OrderedDict[str, _Verified] = OrderedDict()

    async def grant(self, token: str, digest: str) -> Grant:
        """Return who acts with a token, and what it may do.

        Raises:
            InvalidTokenError: it is invalid, has expired or was revoked, or its user is blocked.
            UnavailableError: the provider or the store of revocations does not answer.
        """
        known, now = self._known.get(digest), time.monotonic()
        if known is None or now - known.verified_at > _VERIFIED or self._clock() >= known.expires_at:
            self._known.pop(digest, None)
            claims = await self._verifier.claims(token)
            known = _Verified(self._rules.grant(claims), float(claims["exp"]), now)
            self._known[digest] = known
            if len(self._known) > _LIMIT:
                self._known.popitem(last=False)
        if now - known.checked_at > FRESH:
            if await self._revocations.refused(_signed(token), known.grant.principal.name):
                self._known.pop(digest, None)
                raise InvalidTokenError("it was revoked, or its user is blocked")
            known.checked_at = now
        return known.grant

    async def revoke(self, token: str, digest: str) -> None:
        """Refuse a token from now on. Raises as `grant`."""
        claims = await self._verifier.claims(token)
        await self._revocations.revoke(_signed(token), float(claims["exp"]), self._clock())
        self._known.pop(digest, None)

    def forget(self) -> None:
        """Look all tokens up again: a user was blocked."""
        self._known.clear()


def _signed(token: str) -> str:
    """Return the digest by which a token is revoked: without its signature, because others can be as valid."""
    return access.token_digest(token.rpartition(".")[0])
