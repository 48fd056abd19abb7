"""`/console/…`: the pages of the console; `/` leads there. `/v1/session`: the cookie that signs a browser in."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Path, Request, Response

from penstock_gateway.console import sessions
from penstock_gateway.console.files import ConsoleFiles, File
from penstock_gateway.errors import ConflictError, NotFoundError
from penstock_gateway.http.bodies import JsonRoute
from penstock_gateway.http.parameters import AUTHENTICATED, feature
from penstock_gateway.http.responses import COMMON, problems

router = APIRouter(tags=["console"], route_class=JsonRoute)

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


@router.post(
    "/v1/session",
    status_code=204,
    summary="Sign a browser in",
    dependencies=[AUTHENTICATED],
    responses={**COMMON, **problems(409)},
)
async def sign_in(request: Request, authorization: Annotated[str, Header(include_in_schema=False)] = "") -> Response:
    """Sets a cookie with the token of this request, which scripts cannot read, for the pages of the console."""
    token = authorization.partition(" ")[2].strip()
    if not sessions.fits(token):
        raise ConflictError("The token is too long for a cookie", "use one of `penstock tokens create`")
    return Response(status_code=204, headers={"set-cookie": sessions.cookie(token, request.url.scheme)})


@router.delete(
    "/v1/session", status_code=204, summary="Sign a browser out", dependencies=[AUTHENTICATED], responses=COMMON
)
async def sign_out(request: Request) -> Response:
    """Deletes the cookie. The token remains valid."""
    return Response(status_code=204, headers={"set-cookie": sessions.cookie("", request.url.scheme)})
