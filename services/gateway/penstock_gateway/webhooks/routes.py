"""`/v1/webhooks`: receive webhooks, which are events."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from penstock_contracts.waits import EventAccepted
from penstock_gateway.http import bodies
from penstock_gateway.http.parameters import NAMED, feature
from penstock_gateway.http.responses import problems
from penstock_gateway.webhooks.webhook_receiver import WebhookReceiver

router = APIRouter(
    prefix="/v1/webhooks/{project}", tags=["webhooks"], responses=problems(400, 401, 403, 413, 422, 429, 503)
)

BODY_LIMIT = 4 * 1024 * 1024
"""Largest body in bytes. It is read before its sender is known."""

Project = Annotated[str, Path(description="name of the project", json_schema_extra=NAMED)]
Name = Annotated[str, Path(description="name of the deployment", json_schema_extra=NAMED)]
Receiver = Annotated[WebhookReceiver, feature(WebhookReceiver)]

_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": EventAccepted, "description": "The delivery was received before"}
}
_BODY = {"requestBody": {"required": True, "content": {"application/json": {"schema": {}}}}}


@router.post("/{name}", status_code=202, summary="Receive a webhook", responses=_RESPONSES, openapi_extra=_BODY)
async def receive_webhook(
    receiver: Receiver, request: Request, response: Response, project: Project, name: Name
) -> EventAccepted:
    """For the webhook trigger of a deployment. The signature of its provider replaces the token.

    Answered when the event is stored. A repeated delivery is not stored again.
    """
    return await _receive(receiver, request, response, project, name, None)


@router.post(
    "/{name}/{trigger}",
    status_code=202,
    summary="Receive a webhook for one of several triggers",
    responses=_RESPONSES,
    openapi_extra=_BODY,
)
async def receive_webhook_of_trigger(
    receiver: Receiver,
    request: Request,
    response: Response,
    project: Project,
    name: Name,
    trigger: Annotated[str, Path(description="name of the trigger", json_schema_extra=NAMED)],
) -> EventAccepted:
    """For a deployment with several webhook triggers."""
    return await _receive(receiver, request, response, project, name, trigger)


async def _receive(
    receiver: WebhookReceiver, request: Request, response: Response, project: str, name: str, trigger: str | None
) -> EventAccepted:
    found = await receiver.trigger(project, name, trigger)
    accepted = await receiver.receive(
        project, name, found, request.headers, await bodies.read_bytes(request, BODY_LIMIT)
    )
    response.status_code = 200 if accepted.duplicate else 202
    return accepted
