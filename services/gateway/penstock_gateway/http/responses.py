"""Responses that routes describe beside their models: problems, bytes, streams, JSON lines."""

from __future__ import annotations

from typing import Any

import orjson
import pydantic
from fastapi import Response

from penstock_gateway.http.problems import MEDIA_TYPE, TITLES

Responses = dict[int | str, dict[str, Any]]

BODY = (400, 413, 415)
"""Statuses of problems with a JSON body."""


def reference(name: str) -> dict[str, str]:
    """Return the schema that refers to a named model."""
    return {"$ref": f"#/components/schemas/{name}"}


def problems(*statuses: int) -> Responses:
    """Describe problem details as the responses of these statuses."""
    content = {MEDIA_TYPE: {"schema": reference("Problem")}}
    return {status: {"description": TITLES[status], "content": content} for status in statuses}


COMMON = problems(401, 403, 404, 422, 503)
"""Problems of every operation that needs the token."""


def content(status: int, description: str, media_types: dict[str, Any]) -> Responses:
    """Describe a response by its media types."""
    return {status: {"description": description, "content": media_types}}


def no_content(status: int, description: str) -> Responses:
    """Describe a response without a body."""
    return {status: {"description": description}}


BYTES: dict[str, Any] = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


def events(text: str) -> dict[str, Any]:
    """Return the content of a stream of server-sent events, described by `text`."""
    return {"text/event-stream": {"schema": {"description": text}}}


def lines(*names: str) -> dict[str, Any]:
    """Return the content of JSON lines, each of one of the named models."""
    return {"application/x-ndjson": {"schema": {"oneOf": [reference(name) for name in names]}}}


def to_json(value: Any) -> bytes:
    """Return the JSON of models, core dataclasses and plain data. Fields of models are not validated again."""
    return orjson.dumps(value, default=_fields)


def _fields(value: object) -> dict[str, Any]:
    if isinstance(value, pydantic.BaseModel):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON")


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Respond with the JSON of `value`; bytes are JSON already."""
    return Response(value if isinstance(value, bytes) else to_json(value), status, headers, "application/json")
