"""The body of a request to an endpoint: the inputs of its run."""

from __future__ import annotations

from typing import Any, cast

from fastapi import Request

from penstock_core.json_schema import kind
from penstock_gateway.artifacts.artifact_transfer import Artifacts
from penstock_gateway.http import bodies
from penstock_gateway.http.problems import RequestError

CONTENT: dict[str, Any] = {"application/json": {"schema": {"type": "object", "description": "inputs by parameter"}}}
"""The media types of bodies."""


async def read(request: Request, artifacts: Artifacts) -> dict[str, Any]:
    """Return the inputs in a request; none if its body is empty.

    Raises:
        RequestError: the body cannot be read.
    """
    raw = await bodies.read_bytes(request, bodies.JSON_LIMIT)
    if not raw.strip():
        return {}
    bodies.check_media_type(request)
    found = bodies.parse_json(raw)
    if not isinstance(found, dict):
        message = f"must be a JSON object with the inputs by name, not {kind(found)}"
        raise RequestError(422, f"The body {message}", errors=[("body", message)])
    return cast("dict[str, Any]", found)
