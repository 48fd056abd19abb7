"""`/v1/artifacts/{sha256}`: put and get content-addressed objects."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from penstock_contracts.api import StoredObject
from penstock_contracts.previews import Preview
from penstock_core import ids
from penstock_core.access import Permission
from penstock_gateway.artifacts.artifact_transfer import Artifacts
from penstock_gateway.http.parameters import Sha256, feature, requires
from penstock_gateway.http.responses import BYTES, COMMON, content, no_content, problems

router = APIRouter(prefix="/v1/artifacts", tags=["artifacts"], responses=COMMON)

Store = Annotated[Artifacts, feature(Artifacts)]

_READ = [requires(Permission.ARTIFACTS_READ)]
_REDIRECT = no_content(307, "Redirect to a presigned URL of the store")


@router.head(
    "/{sha256}",
    summary="Check whether an artifact exists",
    dependencies=_READ,
    response_class=Response,
    responses=problems(404),
)
async def head_artifact(artifacts: Store, request: Request, sha256: Sha256) -> Response:
    """`Content-Length` is the size in bytes."""
    return await artifacts.get(request, sha256)


@router.get(
    "/{sha256}",
    summary="Get the content of an artifact",
    dependencies=_READ,
    response_class=Response,
    responses={
        **content(200, "The content", BYTES),
        **content(206, "The requested range", BYTES),
        **_REDIRECT,
        **problems(404, 416),
    },
)
async def get_artifact(
    artifacts: Store,
    request: Request,
    sha256: Sha256,
    folder: Annotated[
        str | None,
        Query(
            description="SHA-256 of the folder that the content is a file of",
            json_schema_extra={"pattern": ids.DIGEST_PATTERN},
        ),
    ] = None,
) -> Response:
    """With `Range` and `If-None-Match`. 307 redirects to a presigned URL: follow it without this API's token."""
    return await artifacts.get(request, sha256, folder=folder)


@router.get("/{sha256}/preview", summary="Get a preview of an artifact", dependencies=_READ, responses=problems(404))
async def get_preview(
    artifacts: Store,
    sha256: Sha256,
    response: Response,
    format: Annotated[str, Query(description="format of the artifact as in its reference; guessed by default")] = "",
    media_type: Annotated[str, Query(description="media type of the artifact; guessed by default")] = "",
    filename: Annotated[str, Query(description="original file name")] = "",
    unsafe: Annotated[bool, Query(description="`unsafe` of the reference: the content is not opened")] = False,
) -> Preview:
    """First rows and columns of tables, thumbnails of images, the beginning of texts, listings of folders and weights.

    Made once, in a sandboxed process. `kind` is `none`, with a reason, for content that cannot be previewed.
    """
    response.headers["cache-control"] = "private, max-age=60"
    return await artifacts.preview(sha256, format=format, media_type=media_type, filename=filename, unsafe=unsafe)


@router.put(
    "/{sha256}",
    status_code=201,
    summary="Put the content of an artifact",
    dependencies=[requires(Permission.ARTIFACTS_CREATE)],
    response_model=StoredObject,
    responses={
        200: {"model": StoredObject, "description": "The artifact existed"},
        **_REDIRECT,
        **problems(400, 404, 413, 507),
    },
    openapi_extra={"requestBody": {"required": True, "content": BYTES}},
)
async def put_artifact(artifacts: Store, request: Request, sha256: Sha256) -> Response:
    """Streams into the store; the artifact becomes visible when its digest is verified. Idempotent.

    307 redirects to a presigned URL: put the content there, without this API's token, and with the headers in the JSON
    object of `Penstock-Send-Headers`.
    """
    return await artifacts.put(request, sha256)
