"""What all routes use."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import Header, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from penstock_gateway.artifacts.artifact_transfer import Artifacts
from penstock_gateway.http.problems import ProblemError
from penstock_gateway.service import GatewayService
from penstock_gateway.settings import GatewaySettings
from penstock_gateway.waits.signed_links import Signer

RunId = Annotated[str, Path(description="id of a run")]
PipelineName = Annotated[str, Path(description="name of a pipeline")]
PipelineFilter = Annotated[str | None, Query(description="only those of this pipeline")]
Sha256 = Annotated[str, Path(description="SHA-256 of the bytes, 64 lower-case hexadecimal digits")]
LastEventId = Annotated[str | None, Header(description="continue after the event of this id")]


def service(request: Request) -> GatewayService:
    """The service behind the application."""
    return request.app.state.service


def artifacts(request: Request) -> Artifacts:
    """The artifacts behind the application."""
    return request.app.state.artifacts


def settings(request: Request) -> GatewaySettings:
    """The settings of the application."""
    return request.app.state.settings


def signer(request: Request) -> Signer:
    """What signs the links to questions."""
    return request.app.state.signer


def json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON of plain data and of the core's dataclasses; bytes are JSON already."""
    body = value if isinstance(value, bytes) else orjson.dumps(value)
    return Response(body, status, headers, "application/json")


def last_event(text: str | None) -> int:
    """The place in the log that a `Last-Event-ID` names; 0 where there is none.

    Raises:
        ProblemError: 422, it is none of this API's ids.
    """
    if text is None or not text.strip():
        return 0
    if not text.isascii() or not text.isdecimal() or len(text) > 15:
        raise ProblemError(
            422,
            "The request is not valid",
            "Last-Event-ID: must be the id of an event of this stream, a whole number",
            errors=[("header.last-event-id", "must be a whole number")],
        )
    return int(text)
