"""`/v1/deployments/{name}/tokens`: tokens that may only call the endpoint of a deployment."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from penstock_contracts.access import CreateEndpointTokenBody, TokenCreated, TokenList
from penstock_core.access import Permission
from penstock_gateway.access.tokens import Tokens
from penstock_gateway.endpoints.endpoints_service import Endpoints
from penstock_gateway.http.bodies import JsonRoute
from penstock_gateway.http.parameters import NAMED, feature, requires
from penstock_gateway.http.principal import By, Project
from penstock_gateway.http.responses import BODY, COMMON, problems

router = APIRouter(prefix="/v1/deployments/{name}/tokens", tags=["endpoints"], route_class=JsonRoute, responses=COMMON)

Name = Annotated[str, Path(description="name of the deployment", json_schema_extra=NAMED)]
NamedTokens = Annotated[Tokens, feature(Tokens)]

_READ = [requires(Permission.DEPLOYMENTS_READ)]
_WRITE = [requires(Permission.DEPLOYMENTS_WRITE)]


@router.get("", summary="List the tokens of an endpoint", dependencies=_READ, responses=problems(404))
async def list_endpoint_tokens(
    tokens: NamedTokens, endpoints: Annotated[Endpoints, feature(Endpoints)], project: Project, name: Name
) -> TokenList:
    """The tokens themselves are not stored."""
    return await tokens.list(project, (await endpoints.get(name)).name)


@router.post(
    "",
    status_code=201,
    summary="Create a token of an endpoint",
    dependencies=_WRITE,
    responses=problems(404, 409, *BODY),
)
async def create_endpoint_token(
    tokens: NamedTokens,
    endpoints: Annotated[Endpoints, feature(Endpoints)],
    name: Name,
    by: By,
    project: Project,
    body: CreateEndpointTokenBody,
) -> TokenCreated:
    """A token that may only call this endpoint. The response is the only place that shows it."""
    endpoint = (await endpoints.get(name)).name
    return await tokens.create(body.name, by, project, endpoint=endpoint, expires_in=body.expires_in)


@router.delete(
    "/{token}", status_code=204, summary="Revoke a token of an endpoint", dependencies=_WRITE, responses=problems(404)
)
async def revoke_endpoint_token(
    tokens: NamedTokens,
    project: Project,
    name: Name,
    token: Annotated[str, Path(description="name of the token", json_schema_extra=NAMED)],
) -> None:
    """Requests with it are refused from now on."""
    await tokens.revoke(token, project, name)
