"""Artifacts over HTTP: where their bytes lie is the artifacts service's to say.

With a folder store on this machine the gateway moves the bytes itself; with an S3 store it answers with a redirection
to a presigned address, and the bytes never pass here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import IO, Any

import orjson
import pydantic
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from penstock_adapters.errors import ArtifactMissingError
from penstock_adapters.files import FolderArtifacts
from penstock_adapters.nats.bus import Bus
from penstock_contracts import subjects
from penstock_contracts.commands import Locate, Location, StoreInfo
from penstock_contracts.previews import MakePreview, PreviewReply
from penstock_core import folders, ids
from penstock_core.errors import InvalidIdError, InvalidInputsError
from penstock_core.pipeline.values import ArtifactRef, Stored, Value
from penstock_core.ports import UnavailableError
from penstock_gateway.http import bodies, downloads, fetch
from penstock_gateway.http.problems import ProblemError

SEND = "penstock-send-headers"
"""Header of a redirected PUT: a JSON object of the headers that belong to the presigned address."""


PREVIEW_PATIENCE = 60.0
"""Seconds that making a preview may take, with its wait for others that are being made."""


class Artifacts:
    """The store as the gateway reaches it."""

    def __init__(self, bus: Bus, max_blob: int) -> None:
        self._bus = bus
        self._max_blob = max_blob
        self._info: StoreInfo | None = None
        self._folder: FolderArtifacts | None = None

    async def describe(self) -> dict[str, Any]:
        """The store's kind and, for a folder, its place."""
        return (await self._store()).model_dump()

    async def get(self, request: Request, sha256: str, about: ArtifactRef | None = None) -> Response:
        """GET or HEAD of an object.

        Raises:
            ProblemError: 404 it is not there; 416 the range lies outside.
        """
        _check_digest(sha256)
        await self._store()
        if self._folder is not None:
            size = await self._folder.stat(sha256)
            if size is None:
                raise missing(sha256)
            return downloads.answer(request, self._folder, sha256, size, about)
        if request.method == "HEAD":
            size = await self.size(sha256)
            if size is None:
                raise missing(sha256)
            return Response(None, 200, {"content-length": str(size), "etag": f'"{sha256}"'})
        location = await self._ask(subjects.ARTIFACTS_LOCATE, Locate(sha256=sha256))
        if location.url is None or location.error is not None:
            raise missing(sha256)
        return Response(None, 307, {"location": location.url})

    async def opened(self, ref: ArtifactRef) -> IO[bytes]:
        """The object as a file of this machine, open for reading.

        Raises:
            ArtifactMissing: it is not there.
            Unavailable: the store does not answer.
        """
        await self._store()
        if self._folder is not None:
            path = self._folder.path(ref.sha256)
            try:
                return await asyncio.to_thread(path.open, "rb")
            except FileNotFoundError as error:
                raise ArtifactMissingError(ref.sha256, str(self._folder.root)) from error
        location = await self._ask(subjects.ARTIFACTS_LOCATE, Locate(sha256=ref.sha256))
        if location.url is None or location.error is not None:
            raise ArtifactMissingError(ref.sha256, "the artifact store")
        return await asyncio.to_thread(fetch.fetch_object, location.url, location.headers)

    async def put(self, request: Request, sha256: str) -> Response:
        """PUT of an object's bytes, whose digest is verified before anything is visible.

        Raises:
            ProblemError: 413 too large; 422 the bytes have another digest.
        """
        _check_digest(sha256)
        info = await self._store()
        limit = min(self._max_blob, info.limit or self._max_blob)
        announced = bodies.check_length(request, limit)
        if self._folder is not None:
            there = await self._folder.stat(sha256) is not None
            size = await self._folder.put_stream(_body(request), sha256, limit)
            answer = orjson.dumps({"sha256": sha256, "size": size})
            return Response(answer, 200 if there else 201, media_type="application/json")
        location = await self._ask(subjects.ARTIFACTS_LOCATE, Locate(sha256=sha256, write=True, size=announced))
        if location.size is not None:
            return Response(orjson.dumps({"sha256": sha256, "size": location.size}), media_type="application/json")
        if location.url is None or location.error is not None:
            raise ProblemError(
                502, "The artifact store does not take the object", location.error or "it gave no reason"
            )
        return Response(None, 307, {"location": location.url, SEND: orjson.dumps(location.headers).decode()})

    async def preview(self, sha256: str, **about: Any) -> Response:
        """What an object looks like, as the artifacts service says: nothing of it is read here.

        Args:
            sha256: the object.
            about: what is known of it: `format`, `media_type`, `filename`, `unsafe`.

        Raises:
            ProblemError: 404 it is not there; 422 what is known of it is not valid; 502 the store failed.
        """
        _check_digest(sha256)
        try:
            command = MakePreview(sha256=sha256, **about)
        except pydantic.ValidationError as error:
            errors = [(f"query.{one['loc'][0]}", one["msg"]) for one in error.errors(include_url=False)]
            raise ProblemError(422, "The request is not valid", errors[0][1], errors=errors) from error
        answer = await self._bus.request(
            subjects.ARTIFACTS_PREVIEW, command.model_dump_json().encode(), timeout=PREVIEW_PATIENCE
        )
        found: PreviewReply = _read(PreviewReply, answer.data)
        if found.unavailable:
            raise UnavailableError(found.error or "the artifact store is away")
        if found.error is not None:
            raise ProblemError(502, "The artifact store failed", found.error)
        if found.preview is None:
            raise missing(sha256)
        headers = {"x-content-type-options": "nosniff", "cache-control": "private, max-age=60"}
        return Response(found.preview.model_dump_json(), 200, headers, "application/json")

    async def size(self, sha256: str, *, keep: bool = False, folder: bool = False) -> int | None:
        """The size of an object in bytes, or None when it is not there.

        Args:
            sha256: the object.
            keep: whether it is about to be named, so that it must not be collected.
            folder: whether it is a folder's manifest, so that this goes for all that it names.
        """
        await self._store()
        if self._folder is not None and not (keep and folder):
            return await (self._folder.touch if keep else self._folder.stat)(sha256)
        found = await self._ask(subjects.ARTIFACTS_STAT, Locate(sha256=sha256, keep=keep, folder=folder))
        if found.error is not None:
            raise ProblemError(502, "The artifact store failed", found.error)
        return found.size

    async def check_inputs(self, given: Mapping[str, Value]) -> None:
        """Check that the objects that inputs name are there.

        Raises:
            InvalidInputs: names the inputs whose object is not.
        """
        errors: list[tuple[str, str]] = []
        for name, value in given.items():
            if not isinstance(value, Stored):
                continue
            is_folder = value.artifact.media_type == folders.MEDIA_TYPE
            size = await self.size(value.artifact.sha256, keep=True, folder=is_folder)
            if size is None:
                errors.append((f"inputs.{name}", "names an artifact that is not in the store: put it first"))
            elif size != value.artifact.size:
                errors.append((f"inputs.{name}", f"names an artifact of {size} bytes, not {value.artifact.size}"))
        if errors:
            raise InvalidInputsError("An input's artifact is not there", errors)

    async def _store(self) -> StoreInfo:
        if self._info is not None:
            return self._info
        answer = await self._bus.request(subjects.ARTIFACTS_STORE, b"{}")
        info: StoreInfo = _read(StoreInfo, answer.data)
        if info.kind == "folder" and info.root:
            self._folder = FolderArtifacts(Path(info.root))
        self._info = info
        return info

    async def _ask(self, subject: str, command: Locate) -> Location:
        answer = await self._bus.request(subject, command.model_dump_json().encode())
        found: Location = _read(Location, answer.data)
        if found.unavailable:
            raise UnavailableError(found.error or "the artifact store is away")
        return found


async def _body(request: Request) -> AsyncGenerator[bytes]:
    try:
        async for chunk in request.stream():
            if chunk:
                yield chunk
    except ClientDisconnect as error:
        raise ProblemError(400, "The body did not come whole", "nothing was stored") from error


def _read(model: type[Any], data: bytes) -> Any:
    try:
        return model.model_validate_json(data)
    except pydantic.ValidationError as error:
        raise ProblemError(502, "The artifacts service gave an unreadable answer", "its log may say why") from error


def _check_digest(sha256: str) -> None:
    try:
        ids.check_digest(sha256)
    except InvalidIdError as error:
        raise ProblemError(404, "There is no such artifact", str(error)) from error


def missing(sha256: str) -> ProblemError:
    """The problem of an object that is not there."""
    return ProblemError(404, f"Artifact {sha256[:12]} is not in the store", "nothing was put under this digest")
