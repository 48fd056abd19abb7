"""Principals and tokens over HTTP."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from penstock_contracts.bodies import RequestBody
from penstock_core.access import Role
from penstock_core.ids import NAME_PATTERN

LIFETIME_LIMIT = 10 * 366 * 86400.0
"""Seconds after which a token that expires does so at the latest."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class WhoAmI(_Model):
    """The principal of the request's token, such as `user:ada` or `token:ci`, and its role in each project.

    The project `*` is all projects.
    """

    principal: str
    kind: str
    name: str
    roles: dict[str, Role]


class LoginView(_Model):
    """How users get a token: from an OpenID Connect provider, by the OAuth 2.0 device authorization grant (RFC 8628).

    `token` is which of the tokens of the provider to send; `audience` is the resource to request an access token for.
    """

    issuer: str
    client_id: str
    scope: str
    token: Literal["id_token", "access_token"]
    audience: str = ""


class BlockedUserView(_Model):
    """A user whose tokens are refused and whose deployments start no runs. `at` is in Unix seconds."""

    name: str
    by: str
    at: float


class BlockedUserList(_Model):
    """Blocked users by name."""

    users: list[BlockedUserView]


class CreateEndpointTokenBody(RequestBody):
    """Create a token of an endpoint."""

    name: str = Field(pattern=NAME_PATTERN)
    expires_in: float | None = Field(
        default=None, gt=0, le=LIFETIME_LIMIT, description="seconds until the token is refused; by default never"
    )


class CreateTokenBody(CreateEndpointTokenBody):
    """Create a named token with a role in the project of the request, or in all projects.

    The role `publisher` may only send events, over HTTP or NATS.
    """

    role: Role | Literal["publisher"]
    all_projects: bool = Field(default=False, description="the role is in all projects, also in those to come")


class TokenView(_Model):
    """A named token, without the token itself. Times are Unix seconds.

    `role` is null for a token of an endpoint, `expires_at` for one that never expires. `last_used_at` is written about
    once a minute; null: not used yet.
    """

    name: str
    principal: str
    project: str
    role: Role | Literal["publisher"] | None
    created_at: float
    created_by: str = ""
    expires_at: float | None = None
    last_used_at: float | None = None


class TokenCreated(TokenView):
    """A new token. `token` is returned only here: the platform stores its hash.

    `inbox_prefix` is that of a NATS client which connects with the token of a publisher.
    """

    token: str
    inbox_prefix: str | None = None


class TokenList(_Model):
    """Named tokens by name."""

    tokens: list[TokenView]
