"""Principals and tokens over HTTP."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from penstock_contracts.bodies import RequestBody
from penstock_core.ids import NAME_PATTERN


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class WhoAmI(_Model):
    """The principal of the request's token, such as `user:ada` or `token:ci`."""

    principal: str
    kind: str
    name: str


class CreateTokenBody(RequestBody):
    """Create a named token."""

    name: str = Field(pattern=NAME_PATTERN)


class TokenView(_Model):
    """A named token, without the token itself. Times are Unix seconds."""

    name: str
    principal: str
    created_at: float
    created_by: str = ""


class TokenCreated(TokenView):
    """A new token. `token` is returned only here: the platform stores its hash."""

    token: str


class TokenList(_Model):
    """Named tokens by name."""

    tokens: list[TokenView]
