"""`/v1/whoami` and `/v1/tokens`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request

from penstock_contracts.access import CreateTokenBody, TokenCreated, TokenList, WhoAmI
from penstock_core import access
from penstock_core.access import Permission, Role
from penstock_gateway.access.nats_access import NatsAccess
from penstock_gateway.access.tokens import Tokens
from penstock_gateway.errors import ForbiddenError
from penstock_gateway.http.bodies import JsonRoute
from penstock_gateway.http.parameters import AUTHENTICATED, NAMED, feature, requires
from penstock_gateway.http.principal import By, Project, granted
from penstock_gateway.http.responses import BODY, COMMON, problems

router = APIRouter(prefix="/v1", tags=["access"], route_class=JsonRoute, responses=COMMON)

NamedTokens = Annotated[Tokens, feature(Tokens)]

_WRITE = [requires(Permission.TOKENS_WRITE)]


@router.get("/whoami", summary="Get the principal of this request", dependencies=[AUTHENTICATED])
async def whoami(request: Request) -> WhoAmI:
    """Facts, lists and logs name this principal for everything done with the token."""
    grant = granted(request)
    found = grant.principal
    return WhoAmI(principal=str(found), kind=found.kind.value, name=found.name, roles=dict(grant.roles))


@router.get("/tokens", summary="List named tokens", dependencies=[requires(Permission.TOKENS_READ)])
async def list_tokens(tokens: NamedTokens, request: Request, project: Project) -> TokenList:
    """Those of the project; for an admin of all projects, all. The tokens themselves are not stored."""
    return await tokens.list(project, every=granted(request).everywhere is Role.ADMIN)


@router.post(
    "/tokens", status_code=201, summary="Create a named token", dependencies=_WRITE, responses=problems(409, *BODY)
)
async def create_token(
    tokens: NamedTokens, request: Request, by: By, project: Project, body: CreateTokenBody
) -> TokenCreated:
    """The response is the only place that shows the token; the platform stores its hash."""
    if body.all_projects and granted(request).everywhere is not Role.ADMIN:
        raise ForbiddenError("Only an admin of all projects can create a token for all projects")
    where = access.EVERY_PROJECT if body.all_projects else project
    role = body.role if isinstance(body.role, Role) else None
    return await tokens.create(body.name, by, where, role=role, publisher=role is None, expires_in=body.expires_in)


@router.delete(
    "/tokens/{name}", status_code=204, summary="Revoke a named token", dependencies=_WRITE, responses=problems(404)
)
async def revoke_token(
    tokens: NamedTokens,
    nats_access: Annotated[NatsAccess, feature(NatsAccess)],
    request: Request,
    project: Project,
    name: Annotated[str, Path(description="name of the token", json_schema_extra=NAMED)],
) -> None:
    """Requests with it are refused from now on, and NATS connections are closed. Facts keep its name."""
    await tokens.revoke(name, project, every=granted(request).everywhere is Role.ADMIN)
    nats_access.check_soon()
