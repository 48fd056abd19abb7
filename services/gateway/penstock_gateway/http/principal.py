"""Who makes a request and what they may do: the grant that the guard puts into the request's scope."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.types import Scope

from penstock_core import access, ids
from penstock_core.access import Grant, Permission, Principal
from penstock_gateway.errors import ForbiddenError, UnprocessableError

_KEY = "penstock.grant"
_PROJECT = "penstock.project"
_HEADER = "penstock-project"


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


def project_of(request: Request) -> str:
    """Return the project of a request: that of its path, else of the header `Penstock-Project`, else the default.

    Raises:
        UnprocessableError: the header is not a name, or differs from the path.
    """
    found: str | None = request.scope.get(_PROJECT)
    if found is None:
        found = request.scope[_PROJECT] = _read_project(request.path_params, request.headers.get(_HEADER))
    return found


def _read_project(path: Mapping[str, Any], header: str | None) -> str:
    named: str | None = path.get("project")
    if header is None:
        return access.DEFAULT_PROJECT if named is None else named
    if named is not None and named != header:
        text = f"names project {header[:100]!r}, and the path {named[:100]!r}: omit the header"
    elif not ids.is_name(header):
        text = f"{header[:100]!r} is not the name of a project"
    else:
        return header
    raise UnprocessableError("Penstock-Project is invalid", text, errors=[("header.penstock-project", text)])


Project = Annotated[str, Depends(project_of)]
"""Parameter of a route: the project of the request."""


def check_permission(request: Request, permission: Permission) -> None:
    """Refuse a request whose principal lacks a permission in the project of the request.

    Raises:
        ForbiddenError: names the permission, and the role that has it; or the project is archived.
        NotFoundError: the project does not exist.
        UnprocessableError: the header of the project is invalid.
    """
    project = project_of(request)
    grant = granted(request)
    if grant.allows(permission, project):
        request.app.state.projects.check(project, permission)
        return
    who = str(grant.principal)
    if grant.endpoint:
        raise ForbiddenError(
            f"The permission {permission} is missing: {who} may only call the endpoint of a deployment"
        )
    if grant.publisher:
        raise ForbiddenError(f"The permission {permission} is missing: {who} may only send events")
    everywhere = permission in access.PLATFORM_PERMISSIONS
    role = grant.everywhere if everywhere else grant.role(project)
    has = f"has the role {role}" if role is not None else "has no role"
    where = "all projects" if everywhere else f"project {project[:100]!r}"
    needed = access.least_role(permission)
    higher = "" if needed is access.ROLES[-1] else " or a higher one"
    raise ForbiddenError(
        f"The permission {permission} is missing: {who} {has} in {where}; the operation needs the role {needed}{higher}"
    )
