"""`/v1/artifacts/{sha256}`: put and get content-addressed objects."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from penstock_core import ids
from penstock_gateway.http import docs
from penstock_gateway.http.common import Sha256, artifacts, json, service
from penstock_gateway.http.docs import describe
from penstock_gateway.runs import search

router = APIRouter(prefix="/v1/artifacts", tags=["artifacts"])


@router.head(
    "/{sha256}",
    summary="Whether an artifact is there, and its size",
    openapi_extra=describe(it_is_there_200=None, problems=(404,)),
)
async def head_artifact(request: Request, sha256: Sha256) -> Response:
    """`Content-Length` is the size in bytes."""
    return await artifacts(request).get(request, sha256)


@router.get(
    "/{sha256}",
    summary="Get an artifact's bytes",
    openapi_extra=describe(the_bytes_200=docs.BYTES, a_part_206=docs.BYTES, elsewhere_307=None, problems=(404, 416)),
)
async def get_artifact(request: Request, sha256: Sha256) -> Response:
    """With `Range` and `If-None-Match`. 307 leads to a presigned address: go there without this API's token."""
    return await artifacts(request).get(request, sha256)


@router.get(
    "/{sha256}/preview",
    summary="What an artifact looks like",
    openapi_extra=describe(the_preview_200="Preview", problems=(404, 422)),
)
async def get_preview(
    request: Request,
    sha256: Sha256,
    format: Annotated[str, Query(description="of the artifact, as its reference says; guessed by default")] = "",
    media_type: Annotated[str, Query(description="of the artifact; guessed by default")] = "",
    filename: Annotated[str, Query(description="name that the file had")] = "",
    unsafe: Annotated[bool, Query(description="its reference says so: it is not looked into")] = False,
) -> Response:
    """First rows and columns of tables, thumbnails of images, the beginning of texts, lists of folders and weights.

    Made once, in a confined process. `kind` is `none`, with a reason, for what cannot or must not be looked into.
    """
    about = {"format": format, "media_type": media_type, "filename": filename, "unsafe": unsafe}
    return await artifacts(request).preview(sha256, **about)


@router.put(
    "/{sha256}",
    status_code=201,
    summary="Put an artifact's bytes",
    openapi_extra=describe(
        body=docs.BYTES,
        stored_201="StoredObject",
        it_was_there_200="StoredObject",
        elsewhere_307=None,
        problems=(400, 404, 413, 422, 507),
    ),
)
async def put_artifact(request: Request, sha256: Sha256) -> Response:
    """Streams into the store; nothing is visible before the digest is verified. Putting what is there is success.

    307 leads to a presigned address: put the bytes there, without this API's token, and with the headers that the
    JSON object in `Penstock-Send-Headers` holds.
    """
    return await artifacts(request).put(request, sha256)


@router.get(
    "/{sha256}/lineage",
    summary="Where an artifact comes from, and what came of it",
    openapi_extra=describe(the_lineage_200="Lineage", problems=(404,)),
)
async def read_lineage(request: Request, sha256: Sha256) -> Response:
    """The attempts that it was made by and those that used it, with what they read and made, nearest first."""
    return json(await search.lineage(service(request), ids.check_digest(sha256)))
