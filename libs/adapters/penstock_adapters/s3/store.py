"""`ports.ArtifactStore` on a bucket of an S3 service. Keys: `<prefix>/sha256/<first 2 hex>/<64 hex>`.

Promise: an object exists complete or not at all; a damaged one is never read whole without an error; memory stays
bounded. The start probes whether the service enforces conditional writes: then an object is never replaced, otherwise
a second writer replaces it by the same bytes.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from penstock_adapters import verification
from penstock_adapters.errors import ArtifactMissingError, ArtifactTooLargeError
from penstock_adapters.s3 import garbage_collection
from penstock_adapters.s3.client import S3Client, S3Options, S3ResponseError, interrupted
from penstock_adapters.s3.upload import IN_FLIGHT, PART, ExpectedObject, Upload
from penstock_core import ids
from penstock_core.errors import UnavailableError
from penstock_core.ports import Marks, StoredObject, check_note

READ_TRIES = 4
STALE = timedelta(days=1)
"""Age from which an upload that was never completed is a leftover."""

LARGEST_PUT = 5 * 1024**3
"""Largest PUT of S3 in bytes, and so of one presigned URL."""

GRANTED_WHOLE = 64 * 1024 * 1024
"""Bytes up to which an object is put in one piece by others: then the service itself checks the digest."""

GRANTED_PART = 32 * 1024 * 1024
GRANTED_PARTS = 500
"""Presigned URLs that fit into one message."""

_PROBE = "probe/conditional-put"
_MAX_EXPIRES = 7 * 86400.0


class S3Artifacts:
    """Content-addressed objects in a bucket. `conditional` says whether conditional writes are used.

    Args:
        options: how the bucket is reached.
        marks: coordinate writers and garbage collection; without them nothing is removed.
    """

    def __init__(self, options: S3Options, marks: Marks | None = None) -> None:
        self.options = options
        self.conditional = False
        self._marks = marks
        self._client = S3Client(options)

    async def prepare(self) -> None:
        """Check address, credentials and bucket, probe for conditional writes, abort leftover uploads.

        Raises:
            UnavailableError: the service is unavailable.
            StoreRefusedError: it is misconfigured; the message says how to fix it.
        """
        self.conditional = await self._probe()
        with contextlib.suppress(S3ResponseError):  # optional: the credentials may lack the permission
            await self._abort_stale()

    async def close(self) -> None:
        """Close connections and threads."""
        await self._client.close()

    async def put_file(self, path: str, sha256: str, size: int) -> None:
        """Store the file at `path`; see the port. An existing object of this size is not read again."""
        ids.check_digest(sha256)
        if await self.touch(sha256) != size:
            await self._upload(ExpectedObject(sha256=sha256, size=size)).send(self._file(Path(path)))

    async def put_bytes(self, data: bytes) -> str:
        """Store bytes; returns their digest."""
        sha256 = hashlib.sha256(data).hexdigest()

        async def once() -> AsyncGenerator[bytes]:
            yield data

        if await self.touch(sha256) != len(data):
            await self._upload(ExpectedObject(sha256=sha256, size=len(data))).send(once())
        return sha256

    async def put_stream(self, chunks: AsyncIterable[bytes], sha256: str, limit: int | None = None) -> int:
        """Store a stream; see the port. It is uploaded as it arrives, without a temporary file."""
        ids.check_digest(sha256)
        if self._marks is not None:
            await garbage_collection.want(self._marks, sha256)
        return await self._upload(ExpectedObject(sha256=sha256, limit=limit)).send(chunks)

    async def open(self, sha256: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes]:
        """Stream an object's bytes; see the port. A broken connection is resumed where it broke."""
        key = self._key(sha256)
        if start < 0 or (end is not None and end < start):
            raise ValueError(f"invalid range: {start} to {end}")
        if end == start:
            if await self.stat(sha256) is None:
                raise ArtifactMissingError(sha256, self.options.where)
            return
        stop = start + PART if end is None else min(end, start + PART)
        try:
            first, size = await self._client.run(self._get, key, start, stop)
        except S3ResponseError as refused:
            if refused.missing:
                raise ArtifactMissingError(sha256, self.options.where) from refused
            raise
        chunks = self._pieces(key, first, start, size if end is None else min(end, size))
        if start == 0 and (end is None or end >= size):
            chunks = verification.whole(chunks, sha256, self.options.where, self._client.pool)
        async with contextlib.aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    async def stat(self, sha256: str) -> int | None:
        """The object's size in bytes, or None when it is not there."""
        try:
            return int((await self._client.call("head_object", Key=self._key(sha256)))["ContentLength"])
        except S3ResponseError as refused:
            if refused.missing:
                return None
            raise

    async def touch(self, sha256: str) -> int | None:
        """Return the size of an object and protect it from collection for a while; see the port.

        Raises:
            UnavailableError: it is being removed: soon it can be put again.
        """
        if self._marks is not None:
            await garbage_collection.want(self._marks, sha256)
        return await self.stat(sha256)

    async def listing(self) -> AsyncGenerator[list[StoredObject]]:
        """All objects; see the port."""
        async for part in garbage_collection.listing(self._client, self._name("sha256/")):
            yield part

    async def sweep(self, sha256: str, before: float) -> bool:
        """Mark an unreferenced object, or remove it when its mark is old enough; see the port."""
        ids.check_digest(sha256)
        return self._marks is not None and await garbage_collection.sweep(self._marks, sha256, before, self.delete)

    async def marked(self) -> AsyncGenerator[list[str]]:
        """The marked objects; see the port."""
        if self._marks is not None and (found := await self._marks.marked()):
            yield found

    async def tidy(self) -> None:
        """Abort leftover uploads."""
        with contextlib.suppress(S3ResponseError):
            await self._abort_stale()

    async def put_note(self, name: str, data: bytes) -> None:
        """Store a note; see the port."""
        await self._client.call("put_object", Key=self._name(f"notes/{check_note(name)}"), Body=data)

    async def notes(self, prefix: str) -> AsyncGenerator[tuple[str, bytes]]:
        """The notes whose names start with a prefix."""
        top = self._name("notes/")
        async for page in garbage_collection.pages(self._client, top + prefix):
            for one in page:
                data = await garbage_collection.get(self._client, one["Key"])
                if data is not None:
                    yield one["Key"].removeprefix(top), data

    async def delete_note(self, name: str) -> None:
        """Remove a note; idempotent."""
        await self._client.call("delete_object", Key=self._name(f"notes/{check_note(name)}"))

    async def delete(self, sha256: str) -> None:
        """Remove an object; idempotent."""
        try:
            await self._client.call("delete_object", Key=self._key(sha256))
        except S3ResponseError as refused:
            if not refused.missing:
                raise

    def locate(
        self, sha256: str, *, write: bool = False, size: int | None = None, expires: float = 3600.0
    ) -> dict[str, Any]:
        """`{"url", "headers"}` for one HTTP GET or PUT within `expires` seconds; the headers are signed, too.

        A URL for writing accepts these bytes only, where the service checks `x-amz-checksum-sha256`.

        Raises:
            ArtifactTooLargeError: `size` exceeds the limit of one PUT.
        """
        key = self._key(sha256)
        expires = min(expires, _MAX_EXPIRES)
        if not write:
            return {"url": self._client.presign("get_object", expires, Key=key), "headers": {}}
        checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
        headers = {"x-amz-checksum-sha256": checksum}
        arguments: dict[str, Any] = {"ChecksumSHA256": checksum}
        if self.conditional:
            headers["If-None-Match"] = arguments["IfNoneMatch"] = "*"
        if size is not None:
            if size > LARGEST_PUT:
                raise ArtifactTooLargeError(sha256, LARGEST_PUT)
            headers["Content-Length"] = str(size)
            arguments["ContentLength"] = size
        return {"url": self._client.presign("put_object", expires, Key=key, **arguments), "headers": headers}

    async def locate_parts(self, sha256: str, size: int, expires: float = 3600.0) -> dict[str, Any] | None:
        """Presigned URLs for the parts of a large object; None where one PUT is enough. See the port."""
        key = self._key(sha256)
        if size <= GRANTED_WHOLE:
            return None
        part = max(GRANTED_PART, -(-size // GRANTED_PARTS))
        upload = (await self._client.call("create_multipart_upload", Key=key))["UploadId"]
        expires = min(expires, _MAX_EXPIRES)
        urls = [
            self._client.presign("upload_part", expires, Key=key, UploadId=upload, PartNumber=number + 1)
            for number in range(-(-size // part))
        ]
        return {"parts": urls, "part_size": part, "upload": upload}

    async def complete_parts(self, sha256: str, upload: str, tags: Sequence[str], size: int) -> None:
        """Complete an object from its uploaded parts; see the port.

        Raises:
            ArtifactMismatchError: they have another size together; nothing was stored.
        """
        await self._upload(ExpectedObject(sha256=sha256, size=size)).complete(upload, tags)

    def _key(self, sha256: str) -> str:
        ids.check_digest(sha256)
        return self._name(f"sha256/{sha256[:2]}/{sha256}")

    def _name(self, tail: str) -> str:
        return f"{self.options.prefix}/{tail}" if self.options.prefix else tail

    def _upload(self, expected_object: ExpectedObject) -> Upload:
        return Upload(self._client, self._key(expected_object.sha256), expected_object, conditional=self.conditional)

    async def _file(self, path: Path) -> AsyncGenerator[bytes]:
        with path.open("rb", buffering=0) as file:  # short; reads are in threads
            while chunk := await self._client.run(file.read, PART):
                yield chunk

    async def _pieces(self, key: str, first: bytes, start: int, stop: int) -> AsyncGenerator[bytes]:
        """`first`, then the rest, some pieces ahead."""
        ahead: deque[asyncio.Task[tuple[bytes, int]]] = deque()
        position = start + len(first)
        try:
            while True:
                while position < stop and len(ahead) < IN_FLIGHT - 1:
                    upto = min(position + PART, stop)
                    ahead.append(asyncio.create_task(self._client.run(self._get, key, position, upto)))
                    position = upto
                if first:
                    yield first
                if not ahead:
                    return
                first, _ = await ahead.popleft()
        finally:
            for task in ahead:
                task.cancel()
            await asyncio.gather(*ahead, return_exceptions=True)

    def _get(self, key: str, start: int, stop: int) -> tuple[bytes, int]:
        """Bytes `start` to `stop` (fewer at the end) and the object's size. Runs in a thread."""
        from botocore import exceptions  # loaded with boto3

        for attempt in range(READ_TRIES):
            try:
                answer = self._client.blocking("get_object", Key=key, Range=f"bytes={start}-{stop - 1}")
                with contextlib.closing(answer["Body"]) as body:
                    data: bytes = body.read()
                return data, int(answer.get("ContentRange", f"/{len(data)}").rpartition("/")[2])
            except exceptions.ClientError as error:
                if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 416:
                    return b"", start  # past the end
                raise
            except interrupted():
                if attempt == READ_TRIES - 1:
                    raise
        raise AssertionError("unreachable: the last try returns or raises")

    async def _probe(self) -> bool:
        """Whether the service refuses conditional writes of existing objects. Usually one request."""
        for _ in range(2):
            try:
                await self._client.call("put_object", Key=self._name(_PROBE), Body=b"penstock", IfNoneMatch="*")
            except S3ResponseError as refused:
                if refused.status == 412:
                    return True
                if refused.status in (409, 501) or refused.code in ("InvalidArgument", "InvalidRequest"):
                    return False
                raise
        return False

    async def _abort_stale(self) -> None:
        prefix = self._name("sha256/")
        answer = await self._client.call("list_multipart_uploads", Prefix=prefix)
        before = datetime.now(UTC) - STALE
        for upload in answer.get("Uploads", []):
            if upload["Initiated"] < before:
                with contextlib.suppress(S3ResponseError, UnavailableError):
                    await self._client.call("abort_multipart_upload", Key=upload["Key"], UploadId=upload["UploadId"])
