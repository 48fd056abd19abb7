"""`/v1/questions`: what steps of all runs ask. `/v1/events`: events that steps wait for."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from penstock_gateway.http.common import PipelineFilter, json, service
from penstock_gateway.http.docs import describe
from penstock_gateway.waits import cloudevents

router = APIRouter(prefix="/v1", tags=["waits"])

_EVENT = {
    "type": "object",
    "required": ["type"],
    "properties": {
        "type": {"type": "string", "minLength": 1, "maxLength": 300},
        "id": {"type": "string", "maxLength": 200, "description": "the same id is the same event, within a day"},
        "key": {"type": "string", "maxLength": 1000, "description": "extension attribute: which of the events"},
        "source": {"type": "string", "maxLength": 1000},
        "data": {"description": "any JSON of at most 64 KiB; what the waiting steps give on"},
    },
}
_BODY = {
    "application/cloudevents+json": {"schema": _EVENT},
    "application/json": {
        "schema": {"description": "an event; or its data, with `ce-type`, `ce-id` and `ce-key` as headers"}
    },
}


@router.get("/questions", summary="List open questions", openapi_extra=describe(the_questions_200="QuestionList"))
async def list_questions(
    request: Request,
    run: Annotated[str | None, Query(description="only those of this run")] = None,
    pipeline: PipelineFilter = None,
) -> Response:
    """What steps of runs ask and nobody has answered, the oldest first."""
    found = await service(request).questions.list(run, pipeline)
    return json({"questions": [one.model_dump() for one in found]})


@router.post(
    "/events",
    status_code=202,
    summary="Send an event to the steps that wait for it",
    openapi_extra=describe(
        body=_BODY, stored_202="EventAccepted", known_by_its_id_200="EventAccepted", problems=(400, 413, 415, 422)
    ),
)
async def send_event(request: Request) -> Response:
    """Stores a CloudEvent and ends the steps that wait for its type and key, now or later: runs that are there already.

    Sending it again with the same id changes nothing, and makes good what a failure in between left undone.
    """
    taken = await service(request).event_receiver.take(await cloudevents.read(request))
    return json(taken.model_dump(), 200 if taken.duplicate else 202)
