"""CloudEvents 1.0 over HTTP: structured (the body is the event), or binary (attributes as headers, data as body)."""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import unquote

import orjson
import pydantic
from fastapi import Request

from penstock_contracts.commands import Event
from penstock_core.json_schema import kind
from penstock_core.pipeline.values import INLINE_LIMIT
from penstock_gateway.errors import ContentTooLargeError, UnprocessableError
from penstock_gateway.http import bodies, problems

BODY_LIMIT = INLINE_LIMIT + 16 * 1024
"""Largest body in bytes: data of the size of an inline value, and attributes."""

_ATTRIBUTES = ("id", "type", "source", "key")


async def read(request: Request) -> Event:
    """Return the event in a request.

    Raises:
        RequestError: 400, 413 or 415, the body cannot be read.
        UnprocessableError: with the attributes that are missing or invalid.
        ContentTooLargeError: the data is too large.
    """
    binary = "ce-type" in request.headers
    raw = await bodies.read_bytes(request, BODY_LIMIT)
    if binary and not raw.strip():
        raw = b"{}"
    else:
        bodies.check_media_type(request)
    data = bodies.parse_json(raw)
    if binary:
        found: dict[str, Any] = {name: unquote(request.headers.get(f"ce-{name}", "")) for name in _ATTRIBUTES}
        return event({**found, "data": data})
    if not isinstance(data, dict):
        message = f"must be a CloudEvent, not {kind(data)}"
        raise UnprocessableError(f"The body {message}", errors=[("body", message)])
    return event(cast("dict[str, Any]", data))


def event(given: dict[str, Any]) -> Event:
    """Return an event from its attributes; attributes that are not used here are dropped.

    Raises:
        UnprocessableError: with the attributes that are missing or invalid.
        ContentTooLargeError: the data is too large.
    """
    if "data_base64" in given:
        message = "is not supported; send JSON as `data`"
        raise UnprocessableError(f"data_base64 {message}", errors=[("data_base64", message)])
    named = {name: given[name] for name in (*_ATTRIBUTES, "data") if given.get(name) is not None}
    try:
        found = Event.model_validate(named)
    except pydantic.ValidationError as error:
        errors = problems.field_errors(error)
        raise UnprocessableError("The event is invalid", problems.sentence(errors), errors=errors) from error
    return check(found)


def check(found: Event) -> Event:
    """Return the event, if its data fits into an output of a step.

    Raises:
        ContentTooLargeError: it does not.
    """
    size = len(orjson.dumps(found.data))
    if size > INLINE_LIMIT:
        raise ContentTooLargeError(
            f"The event's data has {size} bytes as JSON, the limit is {INLINE_LIMIT}",
            "store it as an artifact and send a reference to that",
        )
    return found
