"""CloudEvents 1.0 over HTTP: structured (the body is the event), or binary (attributes as headers, data as body)."""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import unquote

import orjson
import pydantic
from starlette.requests import Request

from penstock_contracts.commands import Event
from penstock_core import json_schema
from penstock_core.pipeline.values import INLINE_LIMIT
from penstock_gateway.http import bodies, problems
from penstock_gateway.http.problems import ProblemError

BODY_LIMIT = INLINE_LIMIT + 16 * 1024
"""Largest body in bytes: data of the size of an inline value, and attributes."""

_ATTRIBUTES = ("id", "type", "source", "key")


async def read(request: Request) -> Event:
    """The event that a request carries.

    Raises:
        ProblemError: 400, 413, 415, or 422 with the attributes that are missing or wrong.
    """
    data = await bodies.read_json(request, limit=BODY_LIMIT, optional="ce-type" in request.headers)
    if "ce-type" in request.headers:
        found: dict[str, Any] = {name: unquote(request.headers.get(f"ce-{name}", "")) for name in _ATTRIBUTES}
        return event({**found, "data": data})
    if not isinstance(data, dict):
        raise ProblemError(
            422, "The body must be a CloudEvent", f"it is {json_schema.kind(data)}", errors=[("body", "none")]
        )
    return event(cast("dict[str, Any]", data))


def event(given: dict[str, Any]) -> Event:
    """An event from its attributes; those that matter to nobody here are left out.

    Raises:
        ProblemError: 422 with the attributes that are missing or wrong; 413 its data is too large.
    """
    if "data_base64" in given:
        raise ProblemError(
            422, "The event's data must be JSON", "send `data`", errors=[("data_base64", "is not taken")]
        )
    named = {name: given[name] for name in (*_ATTRIBUTES, "data") if given.get(name) is not None}
    try:
        found = Event.model_validate(named)
    except pydantic.ValidationError as error:
        errors = problems.from_validation(error)
        raise ProblemError(422, "The event is not valid", problems.sentence(errors), errors=errors) from error
    return check(found)


def check(found: Event) -> Event:
    """The event, if its data may be the output of a step.

    Raises:
        ProblemError: 413 it is too large.
    """
    size = len(orjson.dumps(found.data))
    if size > INLINE_LIMIT:
        raise ProblemError(
            413,
            "The event's data is too large",
            f"it has {size} bytes as JSON, the limit is {INLINE_LIMIT}: put it as an artifact or a file, and name that",
        )
    return found
