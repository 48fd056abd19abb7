"""`/v1/answers/{token}`: the pages of signed links. The signature replaces the platform's token."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from penstock_core.access import Grant
from penstock_gateway.http import bodies
from penstock_gateway.http.parameters import feature
from penstock_gateway.http.principal import set_grant
from penstock_gateway.http.responses import content
from penstock_gateway.waits import link_pages
from penstock_gateway.waits.link_pages import LinkPages

_PAGE: dict[str, Any] = {"text/html": {"schema": {"type": "string"}}}
_FORM: dict[str, Any] = {
    "application/x-www-form-urlencoded": {
        "schema": {
            "type": "object",
            "properties": {"choice": {"type": "string"}, "name": {"type": "string"}, "comment": {"type": "string"}},
            "additionalProperties": False,
        }
    }
}

router = APIRouter(
    prefix="/v1/answers",
    tags=["waits"],
    responses={
        **content(200, "The page", _PAGE),
        **content(403, "The link is invalid", _PAGE),
        **content(404, "The run or the step does not exist", _PAGE),
        **content(409, "The step was answered otherwise, or does not wait", _PAGE),
        **content(410, "The link has expired", _PAGE),
        **content(422, "Not an answer", _PAGE),
    },
)

Token = Annotated[str, Path(description="token of the link")]
Pages = Annotated[LinkPages, feature(LinkPages)]


@router.get("/{token}", summary="Get the page of a signed link", response_class=Response)
async def answer_page(pages: Pages, token: Token) -> Response:
    """Shows the question and its choices, or the answer. Changes nothing."""
    return await pages.get(token)


@router.post(
    "/{token}",
    summary="Answer through a signed link",
    response_class=Response,
    openapi_extra={"requestBody": {"required": True, "content": _FORM}},
)
async def answer_by_link(pages: Pages, request: Request, token: Token) -> Response:
    """Gives the answer of the link, or the chosen one. Idempotent."""
    found = pages.principal(token)
    if found is not None:
        set_grant(request.scope, Grant(principal=found, roles={}))
    return await pages.post(token, await bodies.read_bytes(request, link_pages.FORM_LIMIT))
