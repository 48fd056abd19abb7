"""`/openapi.json` and `/docs`: the description of the HTTP API."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request, Response

from penstock_gateway.api_description.api_description import ApiDescription
from penstock_gateway.api_description.page import HEADERS
from penstock_gateway.http.parameters import feature
from penstock_gateway.http.responses import content

router = APIRouter(tags=["platform"])

Description = Annotated[ApiDescription, feature(ApiDescription)]

_JSON: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
_PAGE: dict[str, Any] = {"text/html": {"schema": {"type": "string"}}}


@router.get(
    "/openapi.json", summary="Describe the API", response_class=Response, responses=content(200, "OpenAPI 3.1", _JSON)
)
async def openapi(description: Description, request: Request) -> Response:
    """The HTTP API as OpenAPI 3.1. Needs no token."""
    return Response(await description.document(request.app), media_type="application/json")


@router.get(
    "/docs", summary="Describe the API as a page", response_class=Response, responses=content(200, "A page", _PAGE)
)
async def docs(description: Description, request: Request) -> Response:
    """The same description to read in a browser, without scripts or other hosts. Needs no token."""
    return Response(await description.page(request.app), media_type="text/html", headers=HEADERS)
