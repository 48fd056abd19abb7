"""The principal of a request, which the guard resolves once and puts into the request's scope."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from starlette.types import Scope

from penstock_core.access import Principal

_KEY = "penstock.principal"


def set_principal(scope: Scope, principal: Principal) -> None:
    """Set who makes the request."""
    scope[_KEY] = principal


def acting(request: Request) -> Principal:
    """Return who makes the request."""
    return request.scope[_KEY]


async def _text(request: Request) -> str:
    return str(acting(request))


By = Annotated[str, Depends(_text)]
"""Parameter of a route: who makes the request, in text form, as facts record it."""


def known(scope: Scope) -> Principal | None:
    """Return who makes the request; None where no token was needed, or it was refused."""
    return scope.get(_KEY)
