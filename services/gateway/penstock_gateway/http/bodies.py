"""Request bodies: read with a limit, parsed strictly, refused with the name of what is wrong."""

from __future__ import annotations

from typing import Any, TypeVar

import orjson
import pydantic
from starlette.requests import ClientDisconnect, Request

from penstock_core.json_schema import kind
from penstock_gateway.http import problems
from penstock_gateway.http.problems import ProblemError

JSON_LIMIT = 8 * 1024 * 1024
"""Largest JSON body in bytes."""

_DEPTH_LIMIT = 100

T = TypeVar("T", bound=pydantic.BaseModel)


async def read(request: Request, model: type[T], *, optional: bool = False, **fixed: Any) -> T:
    """The request's JSON body as `model`. `fixed` are fields that the address gives; the body may repeat them.

    Raises:
        ProblemError: 413, 415, 400 (no JSON) or 422 (wrong fields).
    """
    data = await read_json(request, optional=optional)
    if not isinstance(data, dict):
        raise ProblemError(422, "The body must be a JSON object", f"it is {kind(data)}", errors=[("body", "no object")])
    for name, value in fixed.items():
        if data.setdefault(name, value) != value:
            raise ProblemError(
                422,
                "The body contradicts the address",
                f"{name} is {value!r} in the address and {str(data[name])[:100]!r} in the body",
                errors=[(name, "differs from the address")],
            )
    try:
        return model.model_validate(data)
    except pydantic.ValidationError as error:
        errors = problems.from_validation(error)
        raise ProblemError(422, "The request is not valid", problems.sentence(errors), errors=errors) from error


async def read_json(request: Request, *, optional: bool = False, limit: int = JSON_LIMIT) -> Any:
    """The request's JSON body of at most `limit` bytes; with `optional`, `{}` for an empty one."""
    raw = await read_bytes(request, limit)
    if optional and not raw.strip():
        return {}
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise ProblemError(
            415, "The body must be JSON", f"its content type is {media_type[:100]!r}: send 'application/json'"
        )
    try:
        data = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ProblemError(400, "The body is not valid JSON", str(error)) from error
    if too_deep(data, _DEPTH_LIMIT):
        raise ProblemError(
            422, "The body is nested too deeply", f"the limit is {_DEPTH_LIMIT} levels", errors=[("body", "too deep")]
        )
    return data


async def read_bytes(request: Request, limit: int) -> bytes:
    """The request's body of at most `limit` bytes.

    Raises:
        ProblemError: 413 it is larger; 400 it did not come whole.
    """
    check_length(request, limit)
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise too_large(limit)
            chunks.append(chunk)
    except ClientDisconnect as error:
        raise ProblemError(400, "The body did not come whole", "the connection was closed before its end") from error
    return b"".join(chunks)


def check_length(request: Request, limit: int) -> int | None:
    """The body's announced length, or None where it is not announced; refuses one over the limit unread."""
    text = request.headers.get("content-length")
    if text is None:
        return None
    if not text.isdecimal():
        raise ProblemError(400, "Content-Length is not a number")
    if int(text) > limit:
        raise too_large(limit)
    return int(text)


def too_large(limit: int) -> ProblemError:
    """The body is over `limit` bytes."""
    return ProblemError(
        413, "The body is too large", f"the limit here is {limit} bytes", headers={"connection": "close"}
    )


def too_deep(data: Any, limit: int) -> bool:
    """Whether JSON data is nested deeper than `limit` levels."""
    level: list[Any] = [data]
    for _ in range(limit + 1):
        level = [
            inner
            for item in level
            if isinstance(item, dict | list)
            for inner in (item.values() if isinstance(item, dict) else item)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True
