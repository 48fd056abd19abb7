"""`/v1/login`, `/v1/logout` and `/v1/blocked-users`: people with tokens of an OpenID Connect provider."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Header, Path

from penstock_contracts.access import BlockedUserList, BlockedUserView, LoginView
from penstock_core import access
from penstock_core.access import NAME_LIMIT, BlockedUser, Permission, Principal, PrincipalKind
from penstock_gateway.access.user_access import UserAccess
from penstock_gateway.errors import ConflictError, NotFoundError
from penstock_gateway.http.bodies import JsonRoute
from penstock_gateway.http.parameters import AUTHENTICATED, feature, requires
from penstock_gateway.http.principal import By
from penstock_gateway.http.responses import COMMON, problems

router = APIRouter(prefix="/v1", tags=["access"], route_class=JsonRoute)

Users = Annotated[UserAccess, feature(UserAccess)]
UserName = Annotated[
    str,
    Path(
        description="name of the user; other printable characters are possible, too",
        max_length=NAME_LIMIT,
        json_schema_extra={"pattern": "^[!-~]{1,400}$"},
    ),
]

_ADMIN = [requires(Permission.PLATFORM_ADMIN)]


@router.get("/login", summary="Get how users log in", responses=problems(404, 422))
async def read_login(users: Users) -> LoginView:
    """Needs no token. 404 if this platform has no OpenID Connect provider."""
    if users.login is None:
        raise NotFoundError("This platform has no OpenID Connect provider", "use a token of `penstock tokens create`")
    return users.login


@router.post(
    "/logout",
    status_code=204,
    summary="Revoke the token of this request",
    dependencies=[AUTHENTICATED],
    responses={**COMMON, **problems(409)},
)
async def logout(users: Users, authorization: Annotated[str, Header(include_in_schema=False)]) -> None:
    """For a token of an OpenID Connect provider: it is refused from now on."""
    token = authorization.partition(" ")[2].strip()
    if users.oidc is None or token.count(".") != 2:
        raise ConflictError("The token is not one of a user who logged in", "revoke it with `penstock tokens revoke`")
    await users.oidc.revoke(token, access.token_digest(token))


@router.get(
    "/blocked-users",
    summary="List blocked users",
    dependencies=_ADMIN,
    responses=COMMON,
)
async def list_blocked_users(users: Users) -> BlockedUserList:
    """Users whose tokens are refused and whose deployments start no runs."""
    found = await users.revocations.blocked()
    return BlockedUserList(users=[BlockedUserView(name=one.name, by=one.by, at=one.at) for one in found])


@router.put(
    "/blocked-users/{name:path}",
    summary="Block a user",
    dependencies=_ADMIN,
    responses=COMMON,
)
async def block_user(users: Users, name: UserName, by: By) -> BlockedUserView:
    """Their tokens are refused within a second, and the triggers of their deployments start no runs."""
    Principal(PrincipalKind.USER, name)
    user = BlockedUser(name=name, by=by, at=time.time())
    await users.revocations.block(user)
    if users.oidc is not None:
        users.oidc.forget()
    return BlockedUserView(name=user.name, by=user.by, at=user.at)


@router.delete(
    "/blocked-users/{name:path}",
    status_code=204,
    summary="Unblock a user",
    dependencies=_ADMIN,
    responses={**COMMON, **problems(404)},
)
async def unblock_user(users: Users, name: UserName) -> None:
    """Their tokens are accepted again."""
    if not await users.revocations.unblock(name):
        raise NotFoundError(f"User {name[:100]!r} is not blocked", "list blocked users with `penstock users list`")
