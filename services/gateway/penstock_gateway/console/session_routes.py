"""`/v1/session`: the cookie that signs a browser in."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from penstock_gateway.console import sessions
from penstock_gateway.errors import ConflictError
from penstock_gateway.http.bodies import JsonRoute
from penstock_gateway.http.parameters import AUTHENTICATED
from penstock_gateway.http.responses import COMMON, problems

router = APIRouter(tags=["console"], route_class=JsonRoute)


@router.post(
    "/v1/session",
    status_code=204,
    summary="Sign a browser in",
    dependencies=[AUTHENTICATED],
    responses={**COMMON, **problems(409)},
)
async def sign_in(request: Request, authorization: Annotated[str, Header(include_in_schema=False)] = "") -> Response:
    """Sets a cookie with the token of this request, which scripts cannot read, for the pages of the console."""
    token = authorization.partition(" ")[2].strip()
    if not sessions.fits(token):
        raise ConflictError("The token is too long for a cookie", "use one of `penstock tokens create`")
    return Response(status_code=204, headers={"set-cookie": sessions.cookie(token, request.url.scheme)})


@router.delete(
    "/v1/session", status_code=204, summary="Sign a browser out", dependencies=[AUTHENTICATED], responses=COMMON
)
async def sign_out(request: Request) -> Response:
    """Deletes the cookie. The token remains valid."""
    return Response(status_code=204, headers={"set-cookie": sessions.cookie("", request.url.scheme)})
