"""`/v1/answers/{token}`: the pages of signed links. The signature stands in for the platform's token."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from penstock_gateway.http import bodies
from penstock_gateway.http.common import service, signer
from penstock_gateway.http.docs import describe
from penstock_gateway.waits import link_pages

router = APIRouter(prefix="/v1/answers", tags=["waits"])

Token = Annotated[str, Path(description="of the link")]
_PAGE: dict[str, Any] = {"text/html": {"schema": {"type": "string"}}}
_FORM: dict[str, Any] = {
    "application/x-www-form-urlencoded": {
        "schema": {
            "type": "object",
            "properties": {"choice": {"type": "string"}, "by": {"type": "string"}, "comment": {"type": "string"}},
        }
    }
}


@router.get(
    "/{token}",
    summary="The page of a link to a question",
    openapi_extra=describe(the_page_200=_PAGE, not_valid_403=_PAGE, gone_404=_PAGE, expired_410=_PAGE, token=False),
)
async def answer_page(request: Request, token: Token) -> Response:
    """Shows the question and its choices, or what was answered. Changes nothing."""
    return await link_pages.page(service(request), signer(request), token)


@router.post(
    "/{token}",
    summary="Answer by a link",
    openapi_extra=describe(
        body=_FORM,
        the_page_200=_PAGE,
        not_valid_403=_PAGE,
        gone_404=_PAGE,
        answered_otherwise_409=_PAGE,
        expired_410=_PAGE,
        no_choice_422=_PAGE,
        token=False,
    ),
)
async def answer_by_link(request: Request, token: Token) -> Response:
    """Gives the answer of the link, or the chosen one. The same answer again changes nothing."""
    form = await bodies.read_bytes(request, link_pages.FORM_LIMIT)
    return await link_pages.post(service(request), signer(request), token, form)
