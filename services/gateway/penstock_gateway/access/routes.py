"""`/v1/whoami` and `/v1/tokens`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from penstock_contracts.access import CreateTokenBody
from penstock_gateway.access.tokens import Tokens
from penstock_gateway.http import bodies
from penstock_gateway.http.common import json
from penstock_gateway.http.docs import describe
from penstock_gateway.http.principal import acting

router = APIRouter(prefix="/v1", tags=["access"])

Name = Annotated[str, Path(description="name of a token")]


def _tokens(request: Request) -> Tokens:
    return request.app.state.tokens


@router.get("/whoami", summary="Read the principal of this request", openapi_extra=describe(the_principal_200="WhoAmI"))
async def whoami(request: Request) -> Response:
    """Facts, lists and logs name this principal for everything done with the token."""
    found = acting(request)
    return json({"principal": str(found), "kind": found.kind.value, "name": found.name})


@router.get("/tokens", summary="List named tokens", openapi_extra=describe(the_tokens_200="TokenList"))
async def list_tokens(request: Request) -> Response:
    """The tokens themselves are not stored."""
    return json((await _tokens(request).list()).model_dump())


@router.post(
    "/tokens",
    status_code=201,
    summary="Create a named token",
    openapi_extra=describe(body="CreateTokenBody", created_201="TokenCreated", problems=(400, 409, 413, 415, 422)),
)
async def create_token(request: Request) -> Response:
    """The response is the only place that shows the token; the platform stores its hash."""
    body = await bodies.read(request, CreateTokenBody)
    return json((await _tokens(request).create(body.name, str(acting(request)))).model_dump(), 201)


@router.delete(
    "/tokens/{name}",
    status_code=204,
    summary="Revoke a named token",
    openapi_extra=describe(revoked_204=None, problems=(404,)),
)
async def revoke_token(request: Request, name: Name) -> Response:
    """Requests with it are refused from now on. What it did keeps its name."""
    await _tokens(request).revoke(name)
    return Response(status_code=204)
