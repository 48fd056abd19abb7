"""`/console/…`: the pages of the console; `/` leads there."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from penstock_gateway.console.files import ConsoleFiles, File
from penstock_gateway.errors import NotFoundError
from penstock_gateway.http.parameters import feature

router = APIRouter(tags=["console"])

Files = Annotated[ConsoleFiles, feature(ConsoleFiles)]

_PAGE_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cache-control": "no-cache",
}
_ASSET_HEADERS = {"cache-control": "public, max-age=31536000, immutable"}


@router.get("/", include_in_schema=False)
async def console_root() -> Response:
    """Lead to the console."""
    return Response(status_code=307, headers={"location": "/console/"})


@router.get("/console", include_in_schema=False)
async def console_without_slash() -> Response:
    """Lead to the console."""
    return await console_root()


@router.get("/console/{path:path}", include_in_schema=False)
async def console_file(files: Files, request: Request, path: Annotated[str, Path()]) -> Response:
    """A page of the console, or a file of it."""
    found = files.get(path) if path else files.page()
    if found is None:
        if "." in path.rpartition("/")[2]:
            raise NotFoundError("There is no such file of the console", "reload the page: it may have been updated")
        found = files.page()
    return _response(found, request.headers.get("accept-encoding", ""))


def _response(file: File, encodings: str) -> Response:
    headers = {**(_PAGE_HEADERS if file.is_page else _ASSET_HEADERS), "vary": "accept-encoding"}
    body = file.content
    if file.compressed and "gzip" in encodings:
        headers["content-encoding"] = "gzip"
        body = file.compressed
    return Response(body, media_type=file.media_type, headers=headers)
