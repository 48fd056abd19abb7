"""`/v1/runs/{id}/steps/{key}`: answer what a step asks, cancel one step or one item."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from penstock_contracts import api
from penstock_contracts.waits import AnswerBody
from penstock_gateway.http import bodies
from penstock_gateway.http.common import RunId, json, service, settings, signer
from penstock_gateway.http.docs import describe
from penstock_gateway.steps import step_actions
from penstock_gateway.waits import answers, link_pages, signed_links

router = APIRouter(prefix="/v1/runs", tags=["runs"])

StepKey = Annotated[str, Path(description="key of a step, such as `train`, `train[3]` or `features/split`")]

Lifetime = Annotated[
    float,
    Query(gt=0, le=signed_links.MAX_LIFETIME, description="seconds that they count, at most until the step gives up"),
]


@router.post(
    "/{run_id}/steps/{key:path}/answer",
    summary="Answer a step's question",
    openapi_extra=describe(body="AnswerBody", answered_200="AnswerAccepted", problems=(400, 404, 409, 413, 415, 422)),
)
async def answer_step(request: Request, run_id: RunId, key: StepKey) -> Response:
    """The first answer counts; the same one again changes nothing. 409 says who has answered what."""
    body = await bodies.read(request, AnswerBody)
    return json((await answers.answer(service(request), run_id, key, body)).model_dump())


@router.get(
    "/{run_id}/steps/{key:path}/links",
    summary="Make links with which a step's question can be answered",
    openapi_extra=describe(the_links_200="AnswerLinks", problems=(404, 409, 422)),
)
async def make_links(
    request: Request, run_id: RunId, key: StepKey, lifetime: Lifetime = signed_links.LIFETIME
) -> Response:
    """Whoever has a link can give that answer, or with `page` any answer to that question, without the token."""
    base = settings(request).public_url or str(request.base_url)
    return json((await link_pages.make(service(request), signer(request), base, run_id, key, lifetime)).model_dump())


@router.post(
    "/{run_id}/steps/{key:path}/cancel",
    status_code=202,
    summary="Ask to cancel a step, or an item of a mapped one",
    openapi_extra=describe(
        body="CancelBody",
        required=False,
        asked_202="StepCancelResult",
        over_already_200="StepCancelResult",
        problems=(400, 404, 413, 415, 422),
    ),
)
async def cancel_step(request: Request, run_id: RunId, key: StepKey) -> Response:
    """It is stopped if it runs, and never runs if it waits; what needs its result is skipped. The run goes on."""
    body = await bodies.read(request, api.CancelBody, optional=True)
    step = await step_actions.cancel(service(request), run_id, key, body)
    state = None if step is None else step.status.value
    return json({"run_id": run_id, "step": key, "state": state}, 202 if step is None else 200)
