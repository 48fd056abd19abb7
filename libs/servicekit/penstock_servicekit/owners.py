"""Whether the owner of a deployment or a backfill may still do what its triggers do, in a project that is not archived.

The triggers act on behalf of the principal that applied the deployment, or started the backfill. Without this check,
runs would go on after the token of that principal was revoked, or the user was blocked.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from penstock_adapters.nats.buckets.projects import Projects
from penstock_core import access, ids
from penstock_core.access import Permission, PrincipalKind, Revocations, TokenStore
from penstock_core.errors import InputError

_AGAIN = {"applied": "apply", "started": "start"}

_FRESH = 0.5
"""Seconds for which an owner that may start runs is not looked up again."""

_LIMIT = 1000


class Owners:
    """Looks up the owners of deployments, each at most twice a second while they may start runs."""

    def __init__(
        self,
        tokens: TokenStore,
        revocations: Revocations,
        projects: Projects,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._tokens = tokens
        self._revocations = revocations
        self._projects = projects
        self._clock = clock
        self._checked: dict[tuple[str, str], float] = {}

    async def check(self, owner: str, project: str, what: str = "deployment", verb: str = "applied") -> None:
        """Check that the owner of a deployment, or of a backfill, may start runs in a project.

        Args:
            owner: the principal that applied the deployment, or started the backfill, in text form.
            project: of the deployment.
            what: `deployment` or `backfill`, for the error.
            verb: what the owner did with it, for the error.

        Raises:
            InputError: it may not, or the project is archived.
            UnavailableError: the token store does not answer.
        """
        now = time.monotonic()
        if now - self._checked.get((owner, project), float("-inf")) < _FRESH:
            return
        await self._look_up(owner, project, what, verb)
        if len(self._checked) >= _LIMIT:
            self._checked.clear()
        self._checked[owner, project] = now

    async def _look_up(self, owner: str, project: str, what: str, verb: str) -> None:
        if await self._projects.is_archived(project):
            raise InputError(
                f"project {project!r} is archived: unarchive it with `penstock projects unarchive {project}`"
            )
        kind, _, name = owner.partition(":")
        if kind == PrincipalKind.USER and await self._revocations.is_blocked(name):
            raise InputError(f"{owner}, who {verb} this {what}, is blocked: {_AGAIN[verb]} it again as another user")
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
