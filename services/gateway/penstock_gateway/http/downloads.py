"""Answers with the bytes of an artifact: whole (verified on the way) or one range (RFC 9110, section 14).

Nothing is interpreted, and nothing a browser could run is served as such: every download is an attachment of the type
it was stored with, unsafe formats are plain bytes, and `nosniff` and a sandbox policy stand on every answer.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from penstock_adapters.files import FolderArtifacts
from penstock_core.pipeline.values import ArtifactRef
from penstock_gateway.http.problems import ProblemError
from penstock_gateway.http.streaming import StreamedResponse

BYTES = "application/octet-stream"
_MEDIA_TYPE = re.compile(
    r"[A-Za-z0-9!#$&^_.+-]{1,100}/[A-Za-z0-9!#$&^_.+-]{1,100}(; ?[A-Za-z0-9-]+=[A-Za-z0-9._-]+)*\Z"
)
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})\Z")


def answer(request: Request, store: FolderArtifacts, sha256: str, size: int, about: ArtifactRef | None) -> Response:
    """The response with an object of `size` bytes, or with the range of it that was asked for.

    Raises:
        ProblemError: 416, the range lies outside.
    """
    headers = {
        "etag": f'"{sha256}"',
        "accept-ranges": "bytes",
        "content-type": media_type(about),
        "content-disposition": disposition(about, sha256),
        "cache-control": "private, max-age=31536000, immutable",
    }
    if headers["etag"] in _tags(request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers={name: headers[name] for name in ("etag", "cache-control")})
    wanted = parse_range(request.headers.get("range", ""), size)
    if request.headers.get("if-range", headers["etag"]) != headers["etag"]:
        wanted = None
    start, stop = wanted or (0, size)
    headers["content-length"] = str(stop - start)
    if wanted is not None:
        headers["content-range"] = f"bytes {start}-{stop - 1}/{size}"
    if request.method == "HEAD":
        return Response(status_code=206 if wanted else 200, headers=headers)
    return StreamedResponse(lambda: store.open(sha256, start, stop), 206 if wanted else 200, headers)


def parse_range(text: str, size: int) -> tuple[int, int] | None:
    """Start and end (exclusive) of a range; None for the whole: no range, several, or another unit.

    Raises:
        ProblemError: 416, it lies outside of the object.
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
        raise ProblemError(
            416,
            "The range lies outside of the object",
            f"it has {size} bytes",
            headers={"content-range": f"bytes */{size}"},
        )
    return start, stop


def media_type(about: ArtifactRef | None) -> str:
    """The type to serve an object as."""
    if about is None or about.unsafe or not _MEDIA_TYPE.match(about.media_type):
        return BYTES
    return about.media_type


def disposition(about: ArtifactRef | None, sha256: str) -> str:
    """`Content-Disposition` with a harmless file name (RFC 6266)."""
    name = (about.filename if about else "").replace("\\", "/").rpartition("/")[2]
    name = "".join(letter for letter in name if letter.isprintable())[:150].strip(". ") or sha256[:16]
    plain = re.sub(r"[^A-Za-z0-9 ._()+-]", "_", name)
    extended = f"; filename*=UTF-8''{quote(name, safe='')}" if plain != name else ""
    return f'attachment; filename="{plain}"{extended}'


def _tags(text: str) -> set[str]:
    return {tag.strip().removeprefix("W/") for tag in text.split(",")}
