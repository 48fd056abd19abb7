"""`/v1/whoami` and `/v1/tokens`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request

from penstock_contracts.access import CreateTokenBody, TokenCreated, TokenList, WhoAmI
from penstock_core.access import Permission
from penstock_gateway.access.tokens import Tokens
from penstock_gateway.http.bodies import JsonRoute
from penstock_gateway.http.parameters import AUTHENTICATED, NAMED, feature, requires
from penstock_gateway.http.principal import By, granted
from penstock_gateway.http.responses import BODY, COMMON, problems
from penstock_gateway.project import PROJECT

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
async def list_tokens(tokens: NamedTokens) -> TokenList:
    """The tokens themselves are not stored."""
    return await tokens.list()


@router.post(
    "/tokens", status_code=201, summary="Create a named token", dependencies=_WRITE, responses=problems(409, *BODY)
)
async def create_token(tokens: NamedTokens, by: By, body: CreateTokenBody) -> TokenCreated:
    """The response is the only place that shows the token; the platform stores its hash."""
    return await tokens.create(body.name, by, PROJECT, role=body.role, expires_in=body.expires_in)


@router.delete(
    "/tokens/{name}", status_code=204, summary="Revoke a named token", dependencies=_WRITE, responses=problems(404)
)
async def revoke_token(
    tokens: NamedTokens, name: Annotated[str, Path(description="name of the token", json_schema_extra=NAMED)]
) -> None:
    """Requests with it are refused from now on. Facts keep its name."""
    await tokens.revoke(name)
