"""Transfers objects between the pod's folder store and presigned URLs: plain HTTP, in threads.

Promise: an object appears here complete and verified, or not at all; after a broken connection a download resumes where
it stopped, and an upload in parts sends the missing parts.
"""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import ssl
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit

from penstock.runner.pod.link import AttemptLink, RefusedError
from penstock.store import FolderStore
from penstock_core import pod_protocol as protocol
from penstock_core.artifacts import folders
from penstock_core.errors import PenstockError, UnavailableError

CHUNK = 1024 * 1024
TIMEOUT = 60.0
TRIES = 12
AT_ONCE = 4
"""Objects, and parts of one object, that are transferred at the same time."""

_STORED = (200, 201, 204, 409, 412)
"""Status of a PUT: stored, or a conditional PUT of an object that exists already."""

Json = dict[str, Any]
T = TypeVar("T")


class TransferError(PenstockError):
    """An object cannot be transferred."""


class Transfers:
    """Transfers of one attempt.

    Args:
        link: asks the executor for locations.
        store: the pod's folder store.
    """

    def __init__(self, link: AttemptLink, store: FolderStore) -> None:
        self._link = link
        self._store = store
        self._uploaded: set[str] = set()

    async def fetch(self, objects: list[tuple[str, str]]) -> None:
        """Download objects, given by digest and media type; the files of folders, too.

        Raises:
            TransferError: one does not exist, or is damaged.
            UnavailableError: the store does not answer.
        """
        await _gather(self._download(sha256) for sha256, _ in objects)
        parts = {one for sha256, kind in objects if kind == folders.MEDIA_TYPE for one in self._parts(sha256)}
        await _gather(self._download(sha256) for sha256 in sorted(parts))

    async def store(self, value: Any) -> None:
        """Upload the objects that a JSON value refers to; the manifest of a folder after its files.

        Raises:
            TransferError: the store refuses one.
            UnavailableError: the store does not answer.
        """
        found = {sha256: kind for sha256, kind in _references(value) if self._store.has(sha256)}
        parts = {one for sha256, kind in found.items() if kind == folders.MEDIA_TYPE for one in self._parts(sha256)}
        await _gather(self._upload(sha256) for sha256 in sorted(parts - self._uploaded))
        await _gather(self._upload(sha256) for sha256 in sorted(found.keys() - self._uploaded))

    def _parts(self, sha256: str) -> list[str]:
        path = self._store.path(sha256)
        if path.stat().st_size > folders.MANIFEST_LIMIT:
            raise TransferError(f"artifact {sha256} is too large for a folder manifest")
        return folders.decode(path.read_bytes()).objects()

    async def _download(self, sha256: str) -> None:
        if self._store.has(sha256):
            return
        with self._store.temporary() as part:

            async def once() -> None:
                location = await self._locate({"sha256": sha256})
                if not location.get("url"):
                    raise TransferError(f"artifact {sha256} is not in the store")
                await asyncio.to_thread(_receive, location, part)

            await _retry(once)
            found, _ = await asyncio.to_thread(self._store.adopt, part)
        if found != sha256:
            raise TransferError(f"artifact {sha256} arrived with the SHA-256 {found}: the stored object is damaged")

    async def _upload(self, sha256: str) -> None:
        path = self._store.path(sha256)
        size = path.stat().st_size
        location = await self._locate({"sha256": sha256, "write": True, "size": size, "parts": True})
        if location.get("parts"):
            await self._upload_parts(location, sha256, path, size)
        elif location.get("size") is None:  # otherwise the store has it already
            await _retry(lambda: asyncio.to_thread(_send, location["url"], location["headers"], path, 0, size))
        self._uploaded.add(sha256)

    async def _upload_parts(self, location: Json, sha256: str, path: Path, size: int) -> None:
        length = int(location["part_size"])
        slots = asyncio.Semaphore(AT_ONCE)

        async def send(number: int, url: str) -> str:
            async with slots:
                start = number * length
                return await _retry(
                    lambda: asyncio.to_thread(_send, url, {}, path, start, min(length, size - start)),
                )

        done: Json = {"sha256": sha256, "upload": location["upload"], "size": size, "tags": []}
        try:
            if await asyncio.to_thread(_digest, path) != sha256:
                raise TransferError(f"artifact {sha256} is damaged on this machine")
            done["tags"] = list(await asyncio.gather(*(send(n, url) for n, url in enumerate(location["parts"]))))
        finally:
            await self._ask(protocol.COMPLETE, done)  # without tags, the upload is aborted

    async def _locate(self, body: Json) -> Json:
        return await self._ask(protocol.LOCATE, body)

    async def _ask(self, verb: str, body: Json) -> Json:
        try:
            return await self._link.ask(verb, body)
        except RefusedError as error:
            raise TransferError(str(error)) from error


def _references(value: Any) -> Iterator[tuple[str, str]]:
    """Digests and media types of the artifacts in a JSON value."""
    if isinstance(value, dict):
        artifact = value.get("artifact")
        if isinstance(artifact, dict) and isinstance(artifact.get("sha256"), str):
            yield artifact["sha256"], str(artifact.get("media_type", ""))
        for one in value.values():
            yield from _references(one)
    elif isinstance(value, list):
        for one in value:
            yield from _references(one)


async def _gather(transfers: Iterator[Awaitable[object]]) -> None:
    """Run a few at the same time. The first error is raised after all that started have ended."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(transfer: Awaitable[object]) -> None:
        async with slots:
            await transfer

    results = await asyncio.gather(*(one(transfer) for transfer in transfers), return_exceptions=True)
    for error in results:
        if isinstance(error, BaseException):
            raise error


async def _retry(transfer: Callable[[], Awaitable[T]]) -> T:
    """Retry a transfer for about a minute: objects are immutable, so repeating is safe."""
    for attempt in range(TRIES):
        try:
            return await transfer()
        except (OSError, http.client.HTTPException) as error:
            if attempt == TRIES - 1:
                raise UnavailableError(
                    f"the artifact store does not answer: {error or type(error).__name__}"
                ) from error
            await asyncio.sleep(min(0.25 * 2**attempt, 10.0))
    raise AssertionError("unreachable: the last try returns or raises")


def _receive(location: Json, part: Path) -> None:
    """Append what is missing of an object to a file."""
    done = part.stat().st_size
    connection, target = _connect(location["url"])
    headers = {**location.get("headers", {}), **({"Range": f"bytes={done}-"} if done else {})}
    try:
        connection.request("GET", target, headers=headers)
        response = connection.getresponse()
        if response.status == 416 and done:
            return  # everything is here already
        if response.status not in (200, 206):
            raise _refused(response, "read")
        with part.open("ab") as file:
            if response.status == 200:
                file.truncate(0)
            missing = int(response.getheader("content-length") or 0)
            while chunk := response.read(CHUNK):
                file.write(chunk)
                missing -= len(chunk)
        if missing > 0:  # http.client treats a broken connection as the end of the body
            raise http.client.IncompleteRead(b"", missing)
    finally:
        connection.close()


def _send(url: str, headers: dict[str, str], path: Path, start: int, size: int) -> str:
    """Send a section of a file; returns the tag that the store gave it."""
    connection, target = _connect(url)
    try:
        with path.open("rb") as file:
            file.seek(start)
            body = _section(file, size)
            connection.request("PUT", target, body=body, headers={**headers, "Content-Length": str(size)})
        response = connection.getresponse()
        if response.status not in _STORED:
            raise _refused(response, "write")
        response.read()
        return response.getheader("etag") or ""
    finally:
        connection.close()


def _section(file: IO[bytes], size: int) -> Iterator[bytes]:
    while size > 0 and (data := file.read(min(size, CHUNK))):
        size -= len(data)
        yield data


def _connect(url: str) -> tuple[http.client.HTTPConnection, str]:
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    if parts.scheme == "https":
        secure = ssl.create_default_context()
        return http.client.HTTPSConnection(parts.netloc, timeout=TIMEOUT, context=secure), target
    return http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT), target


def _refused(response: http.client.HTTPResponse, what: str) -> Exception:
    text = f"the artifact store refused a {what}: {response.status} {response.read(300).decode(errors='replace')}"
    if response.status >= 500 or response.status in (403, 408, 429):  # 403: the location has expired
        return OSError(text)
    return TransferError(text)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
