"""Responses with the bytes of an artifact: whole (verified while they are read) or one range (RFC 9110, section 14).

Nothing is interpreted, and a browser runs nothing: every download is an attachment with the media type it was stored
with, unsafe formats are `application/octet-stream`, and every response has `nosniff` and a sandbox policy.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from typing import Protocol
from urllib.parse import quote

from fastapi import Request, Response

from penstock_core.pipeline.values import ArtifactRef
from penstock_gateway.http.problems import RequestError
from penstock_gateway.http.streaming import StreamedResponse

BYTES = "application/octet-stream"

STALL = 300.0
"""Seconds after which a client that does not read is disconnected; it can resume with a range."""
_MEDIA_TYPE = re.compile(
    r"[A-Za-z0-9!#$&^_.+-]{1,100}/[A-Za-z0-9!#$&^_.+-]{1,100}(; ?[A-Za-z0-9-]+=[A-Za-z0-9._-]+)*\Z"
)
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})\Z")


class ReadableStore(Protocol):
    """A store of objects by digest."""

    def open(self, sha256: str, start: int, stop: int, /) -> AsyncGenerator[bytes]:
        """Stream the bytes of an object from `start` to `stop` (exclusive)."""
        ...


def download(request: Request, store: ReadableStore, sha256: str, size: int, ref: ArtifactRef | None) -> Response:
    """Respond with an object of `size` bytes, or with the requested range of it.

    Raises:
        RequestError: 416, the range is outside of the object.
    """
    headers = {
        "etag": f'"{sha256}"',
        "accept-ranges": "bytes",
        "content-type": media_type(ref),
        "content-disposition": disposition(ref, sha256),
        "cache-control": "private, max-age=31536000, immutable",
    }
    if headers["etag"] in _tags(request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers={name: headers[name] for name in ("etag", "cache-control")})
    span = parse_range(request.headers.get("range", ""), size)
    if request.headers.get("if-range", headers["etag"]) != headers["etag"]:
        span = None
    start, stop = span or (0, size)
    headers["content-length"] = str(stop - start)
    if span is not None:
        headers["content-range"] = f"bytes {start}-{stop - 1}/{size}"
    if request.method == "HEAD":
        return Response(status_code=206 if span else 200, headers=headers)
    return StreamedResponse(lambda: store.open(sha256, start, stop), 206 if span else 200, headers, STALL)


def parse_range(text: str, size: int) -> tuple[int, int] | None:
    """Return start and end (exclusive) of a range; None for the whole object: no range, several, or another unit.

    Raises:
        RequestError: 416, it is outside of the object.
    """
    found = _RANGE.match(text.strip())
    if found is None or found.group(1) == found.group(2) == "":
        return None
    first, last = found.groups()
    if first == "":
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(int(last) + 1 if last else size, size)
        if last and int(last) < int(first):
            return None
    if start >= stop:
        raise RequestError(
            416,
            f"The range is outside of the object: it has {size} bytes",
            headers={"content-range": f"bytes */{size}"},
        )
    return start, stop


def media_type(ref: ArtifactRef | None) -> str:
    """Return the media type to serve an object with."""
    if ref is None or ref.unsafe or not _MEDIA_TYPE.match(ref.media_type):
        return BYTES
    return ref.media_type


def disposition(ref: ArtifactRef | None, sha256: str) -> str:
    """Return `Content-Disposition` with a safe file name (RFC 6266)."""
    name = (ref.filename if ref else "").replace("\\", "/").rpartition("/")[2]
    name = "".join(letter for letter in name if letter.isprintable())[:150].strip(". ") or sha256[:16]
    plain = re.sub(r"[^A-Za-z0-9 ._()+-]", "_", name)
    extended = f"; filename*=UTF-8''{quote(name, safe='')}" if plain != name else ""
    return f'attachment; filename="{plain}"{extended}'


def _tags(text: str) -> set[str]:
    return {tag.strip().removeprefix("W/") for tag in text.split(",")}
