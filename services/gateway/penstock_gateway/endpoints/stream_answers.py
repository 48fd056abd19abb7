"""Answers of endpoints item by item: as server-sent events, or as lines of JSON."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import orjson
import structlog
from fastapi import Response

from penstock_core.errors import PenstockError
from penstock_gateway.endpoints.stream_formats import Format
from penstock_gateway.endpoints.warm_calls import WarmCall
from penstock_gateway.http import problems
from penstock_gateway.http.streaming import StreamedResponse

_LOG = structlog.get_logger("gateway")
_STALL = 30.0
"""Seconds after which a client that does not read is disconnected."""


def response(parts: AsyncGenerator[list[Any] | WarmCall], shape: Format, headers: dict[str, str]) -> Response:
    """Return the answer with the items of a call, as they come.

    An error before the first item is a problem response; one after it is the last event or line.
    """
    return StreamedResponse(lambda: _chunks(parts, shape), headers=_headers(shape, headers), stall=_STALL)


async def _chunks(parts: AsyncGenerator[list[Any] | WarmCall], shape: Format) -> AsyncGenerator[bytes]:
    count, began = 0, False
    async with contextlib.aclosing(parts) as several:
        try:
            async for part in several:
                if isinstance(part, WarmCall):
                    yield _end(shape, part.run_id, count)
                elif part:
                    count, began = count + len(part), True
                    yield b"".join([shape.item(item) for item in part])
                elif began:
                    yield shape.comment
        except Exception as error:
            if not began:
                raise
            if not isinstance(error, PenstockError):
                _LOG.exception("the stream of an endpoint failed")
            found = problems.response_to(error) or problems.problem(
                500, "the stream failed: see the log of the gateway"
            )
            yield shape.last("error", bytes(found.body))


def whole(answer: Any, run_id: str, shape: Format, headers: dict[str, str]) -> Response:
    """Return the answer with the items of a run that has finished. Those of a large output are a link in the end."""
    items: list[Any] = answer if isinstance(answer, list) else []
    more = {} if isinstance(answer, list) else {"output": answer}
    body = b"".join([*map(shape.item, items), _end(shape, run_id, len(items), **more)])
    return Response(body, headers=_headers(shape, headers))


def _end(shape: Format, run_id: str, count: int, **more: Any) -> bytes:
    return shape.last("end", orjson.dumps({"run_id": run_id, "items": count, **more}))


def _headers(shape: Format, headers: dict[str, str]) -> dict[str, str]:
    return {**headers, "content-type": shape.value, "cache-control": "no-store", "x-accel-buffering": "no"}
