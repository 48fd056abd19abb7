"""The formats of answers item by item, and which of them a request prefers."""

from __future__ import annotations

import contextlib
from enum import StrEnum
from typing import Any

import orjson

from penstock_gateway.http.problems import RequestError

_JSON = ("application/json", "application/*", "*/*")

DESCRIPTIONS = {
    "text/event-stream": "an event for each item of the output, then an event `end` or `error`",
    "application/x-ndjson": 'a line `{"item": …}` for each item of the output, then `{"end": …}` or `{"error": …}`',
}
"""The media types of streams."""


class Format(StrEnum):
    """How items are sent."""

    EVENTS = "text/event-stream"
    LINES = "application/x-ndjson"

    def item(self, item: Any) -> bytes:
        """Return an item."""
        if self is Format.EVENTS:
            return b"data: %b\n\n" % orjson.dumps(item)
        return b'{"item":%b}\n' % orjson.dumps(item)

    def last(self, kind: str, body: bytes) -> bytes:
        """Return the end or the error of a stream; its body is JSON."""
        if self is Format.EVENTS:
            return b"event: %b\ndata: %b\n\n" % (kind.encode(), body)
        return b'{"%b":%b}\n' % (kind.encode(), body)

    @property
    def comment(self) -> bytes:
        """What keeps an idle connection open."""
        return b": still here\n\n" if self is Format.EVENTS else b"\n"


def requested(accept: str | None, streams: bool, name: str) -> Format | None:
    """Return the format of a stream that a request prefers; None: JSON.

    Args:
        accept: the header of the request.
        streams: whether the output of the endpoint is a stream of items.
        name: of the endpoint.

    Raises:
        RequestError: 406, only streams are accepted, and the output is none.
    """
    wanted = [name for name in _preferences(accept) if name in (*Format, *_JSON)]
    if not wanted or (streams and wanted[0] in _JSON):
        return None
    if streams:
        return Format(wanted[0])
    if not any(one in _JSON for one in wanted):
        raise RequestError(
            406, f"Endpoint {name!r} cannot stream its answer: the output of its pipeline is no step that yields items"
        )
    return None


def _preferences(accept: str | None) -> list[str]:
    """Return the media types of a header, the preferred ones first; those with weight 0 are left out."""
    found: list[tuple[float, str]] = []
    for part in (accept or "").split(","):
        name, *parameters = (one.strip().lower() for one in part.split(";"))
        weight = 1.0
        for one in parameters:
            if one.startswith("q="):
                with contextlib.suppress(ValueError):
                    weight = float(one[2:])
        if weight > 0:
            found.append((-weight, name))
    return [name for _, name in sorted(found, key=lambda one: one[0])]
