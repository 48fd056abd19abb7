"""Who makes a request and what they may do: the grant that the guard puts into the request's scope."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from starlette.types import Scope

from penstock_core import access
from penstock_core.access import Grant, Permission, Principal
from penstock_gateway.errors import ForbiddenError
from penstock_gateway.project import PROJECT

_KEY = "penstock.grant"


def set_grant(scope: Scope, grant: Grant) -> None:
    """Set who makes the request and what they may do."""
    scope[_KEY] = grant


def granted(request: Request) -> Grant:
    """Return who makes the request and what they may do."""
    return request.scope[_KEY]


def acting(request: Request) -> Principal:
    """Return who makes the request."""
    return granted(request).principal


async def _text(request: Request) -> str:
    return str(acting(request))


By = Annotated[str, Depends(_text)]
"""Parameter of a route: who makes the request, in text form, as facts record it."""


def known(scope: Scope) -> Principal | None:
    """Return who makes the request; None where no token was needed, or it was refused."""
    grant: Grant | None = scope.get(_KEY)
    return grant.principal if grant is not None else None


def check_permission(request: Request, permission: Permission) -> None:
    """Refuse a request whose principal lacks a permission in the project of the request.

    Raises:
        ForbiddenError: names the permission, and the role that has it.
    """
    project: str = request.path_params.get("project", PROJECT)
    grant = granted(request)
    if grant.allows(permission, project):
        return
    who = str(grant.principal)
    if grant.endpoint:
        raise ForbiddenError(
            f"The permission {permission} is missing: {who} may only call the endpoint of a deployment"
        )
    role = grant.role(project)
    has = f"has the role {role}" if role is not None else "has no role"
    needed = access.least_role(permission)
    higher = "" if needed is access.ROLES[-1] else " or a higher one"
    raise ForbiddenError(
        f"The permission {permission} is missing: {who} {has} in project {project[:100]!r}; "
        f"the operation needs the role {needed}{higher}"
    )
