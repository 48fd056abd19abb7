"""Whether the owner of a deployment or a backfill may still do what its triggers do.

The triggers act on behalf of the principal that applied the deployment, or started the backfill. Without this check,
runs would go on after the token of that principal was revoked.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from penstock_core import access, ids
from penstock_core.access import Permission, PrincipalKind, TokenStore
from penstock_core.errors import InputError

_AGAIN = {"applied": "apply", "started": "start"}


class Owners:
    """Looks up the owners of deployments."""

    def __init__(self, tokens: TokenStore, clock: Callable[[], float] = time.time) -> None:
        self._tokens = tokens
        self._clock = clock

    async def check(self, owner: str, project: str, what: str = "deployment", verb: str = "applied") -> None:
        """Check that the owner of a deployment, or of a backfill, may start runs in a project.

        Args:
            owner: the principal that applied the deployment, or started the backfill, in text form.
            project: of the deployment.
            what: `deployment` or `backfill`, for the error.
            verb: what the owner did with it, for the error.

        Raises:
            InputError: it may not.
            UnavailableError: the token store does not answer.
        """
        kind, _, name = owner.partition(":")
        if kind != PrincipalKind.TOKEN or name == access.DEFAULT_TOKEN:
            return
        token = await self._tokens.get(name) if ids.is_name(name) else None
        why = ""
        if token is None:
            why = "it was revoked"
        elif token.expired(self._clock()):
            why = "it has expired"
        elif not token.grant.allows(Permission.RUNS_CREATE, project):
            why = f"its role in project {project!r} is {token.grant.role(project) or 'none'}"
        if why:
            raise InputError(
                f"{owner}, which {verb} this {what}, lacks the permission {Permission.RUNS_CREATE}: {why}; "
                f"{_AGAIN[verb]} the {what} again with a token that has the permission"
            )
