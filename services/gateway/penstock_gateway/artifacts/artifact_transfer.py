"""Artifacts over HTTP. The artifacts service says where the bytes are stored.

With a folder store on this machine the gateway transfers the bytes itself; with an S3 store it redirects to a presigned
URL, and the bytes do not pass through it, unless clients cannot reach the store (`PENSTOCK_ARTIFACTS_VIA_GATEWAY`).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

import orjson
import pydantic
from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from penstock_adapters.errors import ArtifactMismatchError, ArtifactMissingError
from penstock_adapters.files import FolderArtifacts
from penstock_adapters.nats.bus import Bus
from penstock_contracts import subjects
from penstock_contracts.commands import Locate, Location, StoreInfo
from penstock_contracts.previews import MakePreview, Preview, PreviewReply
from penstock_core import ids
from penstock_core.artifacts import folders
from penstock_core.artifacts.reach import Reached
from penstock_core.errors import InvalidIdError, InvalidInputsError, UnavailableError
from penstock_core.pipeline.values import ArtifactRef, Stored, Value
from penstock_gateway.artifacts.fetch import fetch_object, send_object
from penstock_gateway.artifacts.pass_through import PassThrough
from penstock_gateway.errors import BadReplyError, ContentTooLargeError, NotFoundError, UnprocessableError
from penstock_gateway.http import bodies, downloads
from penstock_gateway.http.problems import RequestError

SEND = "penstock-send-headers"
"""Header of a redirected PUT: a JSON object of the headers to send to the presigned URL."""

_CHUNK = 1024 * 1024
_FOLDERS = 100

PREVIEW_PATIENCE = 60.0
"""Seconds that a preview may take, including the wait for the ones before it."""


class Reach(Protocol):
    """Which objects a project can read."""

    @property
    def everything(self) -> bool:
        """Whether all objects are reachable."""
        ...

    @property
    def upload_limit(self) -> int | None:
        """The largest artifact that the project may upload, in bytes; None without a quota."""
        ...

    async def find(self, sha256: str) -> Reached:
        """Return whether an object is reachable."""
        ...

    async def add(self, sha256: str) -> None:
        """Make an object reachable, which a principal of the project has uploaded."""
        ...


class Artifacts:
    """The artifact store as the gateway reaches it: all objects, or those that a project can read.

    Other objects do not exist for a project; one that it uploads is stored, or else read and verified.

    Args:
        bus: the message bus.
        max_blob: largest artifact in bytes.
        via_gateway: whether the bytes of objects in S3 pass through the gateway.
        reach: of the project; None for all objects.
    """

    def __init__(self, bus: Bus, max_blob: int, *, via_gateway: bool = False, reach: Reach | None = None) -> None:
        self._bus = bus
        self._max_blob = max_blob
        self._reach = reach
        self._members: OrderedDict[str, frozenset[str]] = OrderedDict()
        self._pass_through = PassThrough(self._locate) if via_gateway else None
        self._info: StoreInfo | None = None
        self._folder: FolderArtifacts | None = None

    async def store(self) -> StoreInfo:
        """Return the kind of the store and, of a folder, its path."""
        return await self._store()

    async def get(
        self, request: Request, sha256: str, ref: ArtifactRef | None = None, folder: str | None = None
    ) -> Response:
        """Respond to GET or HEAD of an object.

        Args:
            request: the request.
            sha256: the object.
            ref: the reference of a run that the principal can read; without one, the object must be reachable.
            folder: the folder that the object is a file of.

        Raises:
            NotFoundError: it does not exist.
            RequestError: 416, the range is outside of it.
        """
        _check_digest(sha256)
        if ref is None:
            await self._check_reach(sha256, folder)
        await self._store()
        if self._folder is not None:
            size = await self._folder.stat(sha256)
            if size is None:
                raise missing(sha256)
            return downloads.download(request, self._folder, sha256, size, ref)
        if request.method == "HEAD":
            size = await self._size(sha256)
            if size is None:
                raise missing(sha256)
            return Response(None, 200, {"content-length": str(size), "etag": f'"{sha256}"'})
        if self._pass_through is not None:
            size = await self._size(sha256)
            if size is None:
                raise missing(sha256)
            return downloads.download(request, self._pass_through, sha256, size, ref)
        location = await self._ask(subjects.ARTIFACTS_LOCATE, Locate(sha256=sha256))
        if location.url is None or location.error is not None:
            raise missing(sha256)
        return Response(None, 307, {"location": location.url})

    async def open(self, ref: ArtifactRef) -> IO[bytes]:
        """Open the object as a file of this machine for reading.

        Raises:
            ArtifactMissingError: it does not exist.
            UnavailableError: the store does not answer.
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
        return await asyncio.to_thread(fetch_object, location.url, location.headers)

    async def put(self, request: Request, sha256: str) -> Response:
        """Respond to PUT of an object, which becomes visible when its digest is verified.

        Raises:
            RequestError: 413, it is too large.
            ArtifactMismatchError: the bytes have another digest.
            UnavailableError: the store does not take them.
        """
        _check_digest(sha256)
        reach = self._reach
        if reach is None or reach.everything:
            return await self._put(request, sha256)
        known = await reach.find(sha256) is not Reached.NO
        answer = await self._put(request, sha256, verified=not known)
        await reach.add(sha256)
        if answer.status_code < 300:
            answer.status_code = 200 if known else 201
        return answer

    async def _put(self, request: Request, sha256: str, *, verified: bool = False) -> Response:
        """Store an object. With `verified`, also the bytes of one that exists are read, and must have the digest."""
        info = await self._store()
        limit = self._limit(info)
        announced = bodies.check_length(request, limit)
        if self._folder is not None:
            existed = await self._folder.stat(sha256) is not None
            size = await self._folder.put_stream(_body(request), sha256, limit)
            answer = orjson.dumps({"sha256": sha256, "size": size})
            return Response(answer, 200 if existed else 201, media_type="application/json")
        location = await self._ask(subjects.ARTIFACTS_LOCATE, Locate(sha256=sha256, write=True, size=announced))
        if location.size is not None:
            if verified:
                await _verify(request, sha256, limit)
            return Response(orjson.dumps({"sha256": sha256, "size": location.size}), media_type="application/json")
        if location.url is None or location.error is not None:
            raise BadReplyError("The artifact store refused the object", location.error or "it gave no reason")
        if self._pass_through is not None:
            if announced is None:
                raise RequestError(400, "The body has no Content-Length: the artifact store needs it")
            await self._pass_through.put(_body(request), location, sha256, announced)
            return Response(orjson.dumps({"sha256": sha256, "size": announced}), 201, media_type="application/json")
        return Response(None, 307, {"location": location.url, SEND: orjson.dumps(location.headers).decode()})

    async def add(self, file: IO[bytes], sha256: str, size: int) -> None:
        """Store a file of this machine as the object with its digest.

        Raises:
            ContentTooLargeError: it exceeds the limit of artifacts.
            BadReplyError, UnavailableError: the store does not take it.
        """
        limit = self._limit(await self._store())
        if size > limit:
            raise ContentTooLargeError(f"A file has {size} bytes", f"the limit is {limit}")
        await self._add(file, sha256, size, limit)
        if self._reach is not None:
            await self._reach.add(sha256)

    async def _add(self, file: IO[bytes], sha256: str, size: int, limit: int) -> None:
        if self._folder is not None:
            await self._folder.put_stream(_chunks(file), sha256, limit)
            return
        location = await self._ask(subjects.ARTIFACTS_LOCATE, Locate(sha256=sha256, write=True, size=size))
        if location.size is not None:
            return
        if location.url is None or location.error is not None:
            raise BadReplyError("The artifact store refused the object", location.error or "it gave no reason")
        await asyncio.to_thread(send_object, location.url, location.headers, file, size)

    async def preview(self, sha256: str, **known: Any) -> Preview:
        """Return a preview that the artifacts service makes; this process does not read the object.

        Args:
            sha256: the object.
            known: what is known about it: `format`, `media_type`, `filename`, `unsafe`.

        Raises:
            NotFoundError: it does not exist.
            UnprocessableError: what is known is invalid.
            BadReplyError: the store failed.
        """
        _check_digest(sha256)
        await self._check_reach(sha256, None)
        try:
            command = MakePreview(sha256=sha256, **known)
        except pydantic.ValidationError as error:
            errors = [(f"query.{one['loc'][0]}", one["msg"]) for one in error.errors(include_url=False)]
            raise UnprocessableError(errors[0][1], errors=errors) from error
        answer = await self._bus.request(
            subjects.ARTIFACTS_PREVIEW, command.model_dump_json().encode(), timeout=PREVIEW_PATIENCE
        )
        found: PreviewReply = _read(PreviewReply, answer.data)
        if found.unavailable:
            raise UnavailableError(found.error or "the artifact store does not answer")
        if found.error is not None:
            raise BadReplyError("The artifact store failed", found.error)
        if found.preview is None:
            raise missing(sha256)
        return found.preview

    async def is_reachable(self, sha256: str) -> bool:
        """Return whether the project can read an object, if it exists."""
        return self._reach is None or await self._reach.find(sha256) is not Reached.NO

    async def has_files(self, ref: ArtifactRef) -> bool:
        """Return whether the project can read the files of an artifact that a principal gives to a run, if it has some.

        It would get them by a manifest of its own otherwise, whatever media type the reference has.
        """
        reach = self._reach
        if reach is None or reach.everything or ref.size > folders.MANIFEST_LIMIT:
            return True
        if await reach.find(ref.sha256) is not Reached.GIVEN:
            return True
        return all([await self.is_reachable(file) for file in await self._files(ref.sha256)])

    async def size(self, sha256: str, *, keep: bool = False, folder: bool = False) -> int | None:
        """Return the size of an object in bytes, or None when it does not exist.

        Args:
            sha256: the object.
            keep: whether a run is about to refer to it, so that the garbage collection must not remove it.
            folder: whether it is a folder's manifest, so that `keep` extends to the objects of the folder.
        """
        if not await self.is_reachable(sha256):
            return None
        return await self._size(sha256, keep=keep, folder=folder)

    async def _size(self, sha256: str, *, keep: bool = False, folder: bool = False) -> int | None:
        await self._store()
        if self._folder is not None and not (keep and folder):
            return await (self._folder.touch if keep else self._folder.stat)(sha256)
        found = await self._ask(subjects.ARTIFACTS_STAT, Locate(sha256=sha256, keep=keep, folder=folder))
        if found.error is not None:
            raise BadReplyError("The artifact store failed", found.error)
        return found.size

    async def check_inputs(self, given: Mapping[str, Value]) -> None:
        """Check that the artifacts that inputs refer to exist.

        Raises:
            InvalidInputsError: names the inputs whose artifact does not.
        """
        errors: list[tuple[str, str]] = []
        for name, value in given.items():
            if not isinstance(value, Stored):
                continue
            is_folder = value.artifact.media_type == folders.MEDIA_TYPE
            size = await self.size(value.artifact.sha256, keep=True, folder=is_folder)
            if size is None:
                errors.append((f"inputs.{name}", "refers to an artifact that is not in the store: store it first"))
            elif size != value.artifact.size:
                errors.append((f"inputs.{name}", f"refers to an artifact of {size} bytes, not {value.artifact.size}"))
        if errors:
            raise InvalidInputsError("An input refers to a missing artifact", errors)

    def _limit(self, info: StoreInfo) -> int:
        """Return the size of the largest object that can be stored."""
        limits = (self._max_blob, info.limit, self._reach.upload_limit if self._reach is not None else None)
        return min(limit for limit in limits if limit)

    async def _check_reach(self, sha256: str, folder: str | None) -> None:
        """Raise NotFoundError for an object that is neither reachable, nor a file of a folder that a run made."""
        reach = self._reach
        if reach is None or await reach.find(sha256) is not Reached.NO:
            return
        if folder is not None and await reach.find(folder) is Reached.MADE and sha256 in await self._files(folder):
            return
        raise missing(sha256)

    async def _files(self, folder: str) -> frozenset[str]:
        """Return the digests of the files of a folder; none for an object that is not the manifest of one."""
        known = self._members.get(folder)
        if known is None:
            try:
                file = await self.open(
                    ArtifactRef(sha256=folder, size=0, media_type=folders.MEDIA_TYPE, format="folder")
                )
            except ArtifactMissingError:
                return frozenset()
            known = self._members[folder] = await asyncio.to_thread(_files_of, file)
            if len(self._members) > _FOLDERS:
                self._members.popitem(last=False)
        return known

    async def _store(self) -> StoreInfo:
        if self._info is not None:
            return self._info
        answer = await self._bus.request(subjects.ARTIFACTS_STORE, b"{}")
        info: StoreInfo = _read(StoreInfo, answer.data)
        if info.kind == "folder" and info.root:
            self._folder = FolderArtifacts(Path(info.root))
        self._info = info
        return info

    async def _locate(self, command: Locate) -> Location:
        return await self._ask(subjects.ARTIFACTS_LOCATE, command)

    async def _ask(self, subject: str, command: Locate) -> Location:
        answer = await self._bus.request(subject, command.model_dump_json().encode())
        found: Location = _read(Location, answer.data)
        if found.unavailable:
            raise UnavailableError(found.error or "the artifact store does not answer")
        return found


def _files_of(file: IO[bytes]) -> frozenset[str]:
    with file:
        if file.read(1) != b"{":  # other artifacts need not be read
            return frozenset()
        data = b"{" + file.read(folders.MANIFEST_LIMIT)
    try:
        return frozenset(folders.decode(data).objects())
    except folders.UnsafeFolderError:
        return frozenset()


async def _verify(request: Request, sha256: str, limit: int) -> None:
    """Read a body, and check its digest. Nothing is stored."""
    digest, size = hashlib.sha256(), 0
    async for chunk in _body(request):
        digest.update(chunk)
        size += len(chunk)
        if size > limit:
            raise ContentTooLargeError("The artifact is too large", f"the limit is {limit} bytes")
    if digest.hexdigest() != sha256:
        raise ArtifactMismatchError(
            f"the bytes given for artifact {sha256} are {size} bytes with the SHA-256 {digest.hexdigest()}: "
            "they changed while they were read or sent; nothing was stored"
        )


async def _chunks(file: IO[bytes]) -> AsyncGenerator[bytes]:
    file.seek(0)
    while chunk := await asyncio.to_thread(file.read, _CHUNK):
        yield chunk


async def _body(request: Request) -> AsyncGenerator[bytes]:
    try:
        async for chunk in request.stream():
            if chunk:
                yield chunk
    except ClientDisconnect as error:
        raise RequestError(400, "The body is incomplete: nothing was stored") from error


def _read(model: type[Any], data: bytes) -> Any:
    try:
        return model.model_validate_json(data)
    except pydantic.ValidationError as error:
        raise BadReplyError("The artifacts service sent an invalid reply", "see its log") from error


def _check_digest(sha256: str) -> None:
    try:
        ids.check_digest(sha256)
    except InvalidIdError as error:
        raise NotFoundError("The artifact does not exist", str(error)) from error


def missing(sha256: str) -> NotFoundError:
    """Return the error of an object that does not exist."""
    return NotFoundError(f"Artifact {sha256[:12]} is not in the store", "no object has this digest")
