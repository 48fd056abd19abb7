"""JSON bodies: read up to a limit and parsed strictly; FastAPI validates them against the model of the route."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from penstock_core.json_schema import kind
from penstock_gateway.http.problems import RequestError

JSON_LIMIT = 8 * 1024 * 1024
"""Largest JSON body in bytes."""

_DEPTH_LIMIT = 100


class JsonRoute(APIRoute):
    """A route whose body, if it has one, is a JSON object of at most `JSON_LIMIT` bytes."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return a handler that reads the body as `_JsonRequest` does."""
        handler = super().get_route_handler()
        required = self.body_field is not None and self.body_field.field_info.is_required()

        async def handle(request: Request) -> Response:
            return await handler(_JsonRequest(request, body_required=required))

        return handle


class _JsonRequest(Request):
    """A request whose body is a JSON object; anything else is refused with the reason."""

    def __init__(self, request: Request, *, body_required: bool) -> None:
        super().__init__(request.scope, request.receive)
        self._body_required = body_required

    async def body(self) -> bytes:
        """Return the body; empty when it is whitespace only."""
        if not hasattr(self, "_body"):
            raw = await read_bytes(self, JSON_LIMIT)
            empty = not raw.strip()
            if self._body_required or not empty:
                check_media_type(self)
            if self._body_required and empty:
                raise RequestError(400, "The body is not valid JSON: it is empty")
            self._body = b"" if empty else raw
        return self._body

    async def json(self) -> Any:
        """Return the parsed body."""
        data = parse_json(await self.body())
        if not isinstance(data, dict):
            message = f"must be a JSON object, not {kind(data)}"
            raise RequestError(422, f"The body {message}", errors=[("body", message)])
        return data


async def read_json(request: Request, limit: int) -> Any:
    """Return the request's JSON body of at most `limit` bytes.

    Raises:
        RequestError: 413, 415, 400 (invalid JSON) or 422 (nested too deeply).
    """
    raw = await read_bytes(request, limit)
    check_media_type(request)
    return parse_json(raw)


def check_media_type(request: Request) -> None:
    """Raise RequestError 415 unless the body is announced as JSON. A missing content type counts as JSON."""
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise RequestError(415, f"Content type {media_type[:100]!r} is not JSON: send 'application/json'")


def parse_json(raw: bytes) -> Any:
    """Parse JSON strictly: no NaN, at most 100 levels deep."""
    try:
        data = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise RequestError(400, f"The body is not valid JSON: {error}") from error
    if too_deep(data, _DEPTH_LIMIT):
        message = f"nested too deeply; the limit is {_DEPTH_LIMIT} levels"
        raise RequestError(422, f"The body is {message}", errors=[("body", message)])
    return data


async def read_bytes(request: Request, limit: int) -> bytes:
    """Return the request's body of at most `limit` bytes.

    Raises:
        RequestError: 413 it is larger; 400 it is incomplete.
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
        raise RequestError(400, "The body is incomplete: the connection was closed before its end") from error
    return b"".join(chunks)


def check_length(request: Request, limit: int) -> int | None:
    """Return the announced length of the body, None without one; refuse a body over the limit unread."""
    text = request.headers.get("content-length")
    if text is None:
        return None
    if not text.isdecimal():
        raise RequestError(400, "Content-Length is not a number")
    if int(text) > limit:
        raise too_large(limit)
    return int(text)


def too_large(limit: int) -> RequestError:
    """Return the error of a body over `limit` bytes."""
    return RequestError(413, f"The body is too large: the limit is {limit} bytes", headers={"connection": "close"})


def too_deep(data: Any, limit: int) -> bool:
    """Return whether JSON data is nested deeper than `limit` levels."""
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
