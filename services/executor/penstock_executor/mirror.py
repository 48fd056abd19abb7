"""Brings artifacts to this machine and takes them from it, when the store is elsewhere.

User code always works on the local folder store. With a remote store the executor fetches an attempt's inputs before
it starts and puts its outputs before its end is reported, through presigned locations that the artifacts service
grants: it holds no credentials of the store. With the folder store all of this is nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import os
import secrets
import ssl
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from urllib.parse import urlsplit

import pydantic

from penstock_adapters.nats.bus import Bus
from penstock_contracts import subjects
from penstock_contracts.commands import Locate, Location, StoreInfo
from penstock_core import values
from penstock_core.errors import PenstockError
from penstock_core.ports import Unavailable
from penstock_core.values import Value

_CHUNK = 1024 * 1024
_TIMEOUT = 60.0
_TRIES = 10


class TransferError(PenstockError):
    """An artifact could not be moved between this machine and the store."""


class Mirror:
    """Artifacts of the store as local files."""

    def __init__(self, bus: Bus, home: Path) -> None:
        self._bus = bus
        self._root = home / "artifacts"
        self._info: StoreInfo | None = None
        self._known: set[str] = set()

    async def local_file(self, sha256: str) -> Path:
        """The object as a file on this machine.

        Raises:
            TransferError: it is nowhere, or came damaged.
            Unavailable: the store does not answer.
        """
        path = self._path(sha256)
        if path.is_file():
            return path
        location = await self._locate(Locate(sha256=sha256))
        if location.path is not None:
            return Path(location.path)
        if location.url is None:
            raise TransferError(location.error or f"artifact {sha256[:12]} is not in the store")
        await _again(lambda: asyncio.to_thread(_download, location, sha256, path))
        return path

    async def fetch(self, wanted: Iterable[Value]) -> None:
        """Have all artifacts among values here.

        Raises:
            TransferError: one is nowhere, or came damaged.
            Unavailable: the store does not answer.
        """
        remote = await self._remote()
        for sha256 in {sha for value in wanted for sha in values.artifacts(value)}:
            if remote or not self._path(sha256).is_file():
                await self.local_file(sha256)

    async def put(self, made: Iterable[Value]) -> None:
        """Have all artifacts among values in the store.

        Raises:
            TransferError: one cannot be put.
            Unavailable: the store does not answer.
        """
        if not await self._remote():
            return
        for sha256 in {sha for value in made for sha in values.artifacts(value)} - self._known:
            path = self._path(sha256)
            location = await self._locate(Locate(sha256=sha256, write=True, size=path.stat().st_size))
            if location.error is not None:
                raise TransferError(location.error)
            if location.url is not None and location.size is None:  # with a size, it is there already
                await _again(lambda path=path, location=location: asyncio.to_thread(_upload, location, path))
            self._known.add(sha256)

    async def missing(self, wanted: Iterable[Value]) -> set[str]:
        """The artifacts among values that the store does not have.

        Raises:
            Unavailable: the store does not answer.
        """
        shas = {sha for value in wanted for sha in values.artifacts(value)}
        return {sha256 for sha256 in shas if not await self._there(sha256)}

    async def _there(self, sha256: str) -> bool:
        reply = await self._bus.request(subjects.ARTIFACTS_STAT, Locate(sha256=sha256).model_dump_json().encode())
        try:
            location = Location.model_validate_json(reply.data)
        except pydantic.ValidationError as error:
            raise Unavailable("the artifacts service gave an unreadable answer") from error
        if location.unavailable or location.error:
            raise Unavailable(location.error or "the artifact store is away")
        return location.size is not None

    async def _remote(self) -> bool:
        if self._info is None:
            reply = await self._bus.request(subjects.ARTIFACTS_STORE, b"{}")
            try:
                self._info = StoreInfo.model_validate_json(reply.data)
            except pydantic.ValidationError as error:
                raise Unavailable("the artifacts service cannot tell its store now") from error
        return self._info.kind != "folder"

    async def _locate(self, command: Locate) -> Location:
        """Ask for a location, for about a minute when the store is away."""
        for attempt in range(_TRIES):
            why = ""
            try:
                reply = await self._bus.request(subjects.ARTIFACTS_LOCATE, command.model_dump_json().encode())
                location = Location.model_validate_json(reply.data)
                if not location.unavailable:
                    return location
                why = location.error or "the artifact store is away"
            except Unavailable as error:
                why = str(error)
            except pydantic.ValidationError as error:
                raise TransferError(f"the artifacts service gave an unreadable answer: {error}") from error
            if attempt == _TRIES - 1:
                raise Unavailable(why)
            await asyncio.sleep(min(0.25 * 2**attempt, 10.0))
        raise AssertionError("unreachable: the last try returns or raises")

    def _path(self, sha256: str) -> Path:
        return self._root / "sha256" / sha256[:2] / sha256


async def _again(transfer: Callable[[], Awaitable[None]]) -> None:
    """Try a transfer a few times: objects are immutable, so repeating is safe."""
    for attempt in range(_TRIES):
        try:
            await transfer()
            return
        except (OSError, http.client.HTTPException) as error:
            if attempt == _TRIES - 1:
                raise Unavailable(f"the artifact store does not answer: {error}") from error
            await asyncio.sleep(min(0.25 * 2**attempt, 10.0))


def _connect(url: str) -> tuple[http.client.HTTPConnection, str]:
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    if parts.scheme == "https":
        secure = http.client.HTTPSConnection(parts.netloc, timeout=_TIMEOUT, context=ssl.create_default_context())
        return secure, target
    return http.client.HTTPConnection(parts.netloc, timeout=_TIMEOUT), target


def _download(location: Location, sha256: str, path: Path) -> None:
    connection, target = _connect(location.url or "")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.parents[2] / "tmp" / f"{sha256[:16]}.{secrets.token_hex(4)}"
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        connection.request("GET", target, headers=location.headers)
        response = connection.getresponse()
        if response.status != 200:
            raise _refused(response, "read")
        digest = hashlib.sha256()
        with part.open("wb") as file:
            while chunk := response.read(_CHUNK):
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != sha256:
            raise TransferError(f"artifact {sha256[:12]} came with digest {digest.hexdigest()[:12]}: it is damaged")
        part.replace(path)
    finally:
        connection.close()
        part.unlink(missing_ok=True)


def _upload(location: Location, path: Path) -> None:
    connection, target = _connect(location.url or "")
    try:
        with path.open("rb") as file:
            headers = {**location.headers, "Content-Length": str(path.stat().st_size)}
            connection.request("PUT", target, body=file, headers=headers)
            response = connection.getresponse()
            if response.status not in (200, 201, 204, 409, 412):  # 409 and 412: it is there already
                raise _refused(response, "write")
            response.read()
    finally:
        connection.close()


def _refused(response: http.client.HTTPResponse, what: str) -> Exception:
    text = f"the artifact store refused a {what}: {response.status} {response.read(300).decode(errors='replace')}"
    return OSError(text) if response.status >= 500 else TransferError(text)
