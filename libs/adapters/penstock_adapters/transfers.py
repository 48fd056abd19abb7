"""Transfers the bytes of artifacts between files of this machine and presigned URLs: plain HTTP, in threads.

Promise: an object appears here whole, verified and durable, or not at all; after a broken connection a download resumes
where it stopped, and a multipart upload sends the missing parts.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import http.client
import io
import os
import secrets
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO, TypeVar
from urllib.parse import urlsplit

from penstock_contracts.commands import Location
from penstock_core.errors import PenstockError, UnavailableError

CHUNK = 1024 * 1024
TIMEOUT = 60.0
TRIES = 10
IN_FLIGHT = 4
"""Parts of one object that are sent at the same time."""

_THERE = (409, 412)
"""Status of a conditional PUT of an object that exists already, or is being written."""

T = TypeVar("T")


class TransferError(PenstockError):
    """An artifact could not be transferred between this machine and the store."""


async def retry(transfer: Callable[[], Awaitable[T]]) -> T:
    """Retry a transfer for about a minute: objects are immutable, so repeating is safe.

    Raises:
        TransferError: the disk of this machine is full.
        UnavailableError: the store does not answer.
    """
    for attempt in range(TRIES):
        try:
            return await transfer()
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise TransferError(
                    f"no room is left on this machine for an artifact ({error}): free some space, then try again"
                ) from error
            if attempt == TRIES - 1:
                raise UnavailableError(
                    f"the artifact store does not answer: {error or type(error).__name__}"
                ) from error
            await asyncio.sleep(min(0.25 * 2**attempt, 10.0))
    raise AssertionError("unreachable: the last try returns or raises")


class Download:
    """A download to `path`, over as many connections as needed."""

    def __init__(self, sha256: str, path: Path) -> None:
        self._sha256 = sha256
        self._path = path
        self._part = path.parents[2] / "tmp" / f"{sha256[:16]}.{secrets.token_hex(4)}"
        self._digest = hashlib.sha256()
        self._done = 0

    def run(self, location: Location) -> None:
        """Download the rest. Called again after an `OSError`, it resumes.

        Raises:
            TransferError: the bytes are not the object's.
        """
        self._part.parent.mkdir(parents=True, exist_ok=True)
        with self._part.open("ab") as file:
            self._receive(location, file)
            file.flush()
            os.fsync(file.fileno())
        found = self._digest.hexdigest()
        if found != self._sha256:
            raise TransferError(
                f"artifact {self._sha256} arrived with the SHA-256 {found}: the stored object is damaged. "
                "Delete it and rerun the step that produced it"
            )
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._part.chmod(0o444)
        self._part.replace(self._path)
        for folder in (self._path.parent, self._path.parent.parent):
            _sync_folder(folder)

    def close(self) -> None:
        """Remove the partial file."""
        self._part.unlink(missing_ok=True)

    def _receive(self, location: Location, file: IO[bytes]) -> None:
        connection, target = _connect(location.url or "")
        ranged = {"Range": f"bytes={self._done}-"} if self._done else {}
        try:
            connection.request("GET", target, headers={**location.headers, **ranged})
            response = connection.getresponse()
            if response.status == 416 and self._done:
                return  # everything is here already
            if response.status not in (200, 206):
                raise _refused(response, "read")
            if response.status == 200 and self._done:
                file.truncate(0)
                self._digest, self._done = hashlib.sha256(), 0
            missing = int(response.getheader("content-length") or 0)
            while chunk := response.read(CHUNK):
                file.write(chunk)
                self._digest.update(chunk)
                self._done += len(chunk)
                missing -= len(chunk)
            if missing > 0:  # http.client treats a broken connection as the end of the body
                raise http.client.IncompleteRead(b"", missing)
        finally:
            connection.close()


def put(location: Location, path: Path) -> None:
    """Send a file in one piece.

    Raises:
        TransferError: the store refuses it.
    """
    with path.open("rb") as file:
        _send(location.url or "", location.headers, file, path.stat().st_size)


async def put_parts(location: Location, path: Path, sha256: str) -> list[str]:
    """Send a file in parts, several at the same time; returns their tags. A part that was stored is not sent again.

    Raises:
        TransferError: the store refuses it, or the file has changed.
        UnavailableError: the store does not answer.
    """
    size = location.part_size
    in_flight = asyncio.Semaphore(IN_FLIGHT)

    async def send(number: int, url: str) -> str:
        async with in_flight:
            return await retry(lambda: asyncio.to_thread(_put_part, url, path, number * size, size))

    hashing = asyncio.create_task(asyncio.to_thread(_digest_of, path))
    tasks = [asyncio.create_task(send(number, url)) for number, url in enumerate(location.parts)]
    try:
        tags = list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        found = await hashing
    if found != sha256:
        raise TransferError(
            f"artifact {sha256} is damaged on this machine: the bytes in {path} have the SHA-256 {found}"
        )
    return tags


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _put_part(url: str, path: Path, start: int, size: int) -> str:
    with path.open("rb") as file:
        file.seek(start)
        length = min(size, os.fstat(file.fileno()).st_size - start)
        tag = _send(url, {}, _Section(file, length), length)
    if not tag:
        raise TransferError("the artifact store returned no ETag for a part of an artifact")
    return tag


class _Section(io.RawIOBase):
    """A part of a file from its current position."""

    def __init__(self, file: IO[bytes], length: int) -> None:
        self._file = file
        self._left = length

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(min(self._left, CHUNK if size < 0 else size))
        self._left -= len(data)
        return data


def _send(url: str, headers: dict[str, str], body: IO[bytes] | io.RawIOBase, size: int) -> str:
    connection, target = _connect(url)
    try:
        sent = {**headers, "Content-Length": str(size)}
        connection.request("PUT", target, body=body, headers=sent)  # type: ignore[arg-type] - it is asked to read only
        response = connection.getresponse()
        if response.status not in (200, 201, 204, *_THERE):
            raise _refused(response, "write")
        response.read()
        return response.getheader("etag") or ""
    finally:
        connection.close()


def _connect(url: str) -> tuple[http.client.HTTPConnection, str]:
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    if parts.scheme == "https":
        secure = ssl.create_default_context()
        return http.client.HTTPSConnection(parts.netloc, timeout=TIMEOUT, context=secure, blocksize=CHUNK), target
    return http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT, blocksize=CHUNK), target


def _refused(response: http.client.HTTPResponse, what: str) -> Exception:
    text = f"the artifact store refused a {what}: {response.status} {response.read(300).decode(errors='replace')}"
    if response.status >= 500 or response.status in (408, 429):
        return OSError(text)
    return TransferError(text)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
