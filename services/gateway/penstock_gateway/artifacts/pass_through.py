"""Passes the bytes of artifacts between clients and an S3 store that the clients cannot reach themselves.

Nothing is kept on this machine: memory stays bounded, whatever the size of the object.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Generator, Mapping
from urllib.parse import urlsplit

from penstock_adapters.errors import ArtifactMismatchError, ArtifactMissingError
from penstock_contracts.commands import Locate, Location
from penstock_core.errors import UnavailableError

_TIMEOUT = 60.0
_CHUNK = 256 * 1024
_EXISTS = (409, 412)
"""Answers of a store to a conditional PUT of an object that another client has put meanwhile."""


class PassThrough:
    """Reads and writes objects by presigned URLs.

    Args:
        locate: asks the artifacts service for the presigned URL of an object.
    """

    def __init__(self, locate: Callable[[Locate], Awaitable[Location]]) -> None:
        self._locate = locate

    async def open(self, sha256: str, start: int, stop: int) -> AsyncGenerator[bytes]:
        """Stream the bytes of an object from `start` to `stop` (exclusive).

        Raises:
            ArtifactMissingError: it does not exist.
            UnavailableError: the store does not deliver it.
        """
        if start == stop:
            return
        location = await self._locate(Locate(sha256=sha256))
        if location.url is None or location.error is not None:
            raise ArtifactMissingError(sha256, "the artifact store")
        with _store_errors("does not deliver"), contextlib.closing(_connection(location.url)) as connection:
            headers = {**location.headers, "range": f"bytes={start}-{stop - 1}"}
            await asyncio.to_thread(connection.request, "GET", _target(location.url), headers=headers)
            answer = await asyncio.to_thread(connection.getresponse)
            if answer.status not in (200, 206) or (answer.status == 200 and start > 0):
                raise UnavailableError(f"the artifact store does not deliver an object: it answers {answer.status}")
            left = stop - start
            while left:
                chunk = await asyncio.to_thread(answer.read, min(_CHUNK, left))
                if not chunk:
                    raise UnavailableError("the artifact store does not deliver an object: it closed the connection")
                left -= len(chunk)
                yield chunk

    async def put(self, chunks: AsyncIterable[bytes], location: Location, sha256: str, size: int) -> None:
        """Send an object of `size` bytes to a presigned URL; the store gets its end only if its digest is right.

        Raises:
            ArtifactMismatchError: the bytes have another digest or size; nothing was stored.
            UnavailableError: the store does not take it.
        """
        assert location.url is not None  # noqa: S101 - checked by the caller
        with _store_errors("does not take"), contextlib.closing(_connection(location.url)) as connection:
            await asyncio.to_thread(_begin, connection, _target(location.url), location.headers, size)
            digest, received, held = hashlib.sha256(), 0, b""
            async for chunk in chunks:
                received += len(chunk)
                if received > size:
                    break
                digest.update(chunk)
                await asyncio.to_thread(connection.send, held)
                held = chunk
            if received != size or digest.hexdigest() != sha256:
                raise ArtifactMismatchError(f"the content has {received} bytes and SHA-256 {digest.hexdigest()[:12]}…")
            await asyncio.to_thread(connection.send, held)
            answer = await asyncio.to_thread(connection.getresponse)
            if answer.status >= 300 and answer.status not in _EXISTS:
                raise UnavailableError(f"the artifact store does not take an object: it answers {answer.status}")


def _begin(connection: http.client.HTTPConnection, target: str, headers: Mapping[str, str], size: int) -> None:
    connection.putrequest("PUT", target, skip_accept_encoding=True)
    for name, value in ({name.lower(): value for name, value in headers.items()} | {"content-length": size}).items():
        connection.putheader(name, str(value))
    connection.endheaders()


def _connection(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.hostname or "", parts.port, timeout=_TIMEOUT)


def _target(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


@contextlib.contextmanager
def _store_errors(what: str) -> Generator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise UnavailableError(f"the artifact store {what} an object: {error}") from error
