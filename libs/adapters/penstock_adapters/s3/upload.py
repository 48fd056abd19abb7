"""Uploads an object to a bucket: in one piece, or in parts when it is large.

Parts are hashed as they are sent, so exactly the sent bytes are verified. The object is completed, and thus visible,
only when digest and size are right. boto3's own transfers cannot do that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterable, Sequence
from dataclasses import dataclass
from typing import Any

from penstock_adapters import verification
from penstock_adapters.errors import ArtifactMismatchError, ArtifactTooLargeError
from penstock_adapters.s3.client import S3Client, S3ResponseError

PART = 8 * 1024 * 1024
IN_FLIGHT = 4
MAX_PARTS = 10_000
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedObject:
    """The expected bytes: digest, size if known, and largest size allowed."""

    sha256: str
    size: int | None = None
    limit: int | None = None

    @property
    def part(self) -> int:
        """Size of the parts, such that the largest object possible has few enough of them."""
        bound = self.size or self.limit or 0
        return max(PART, -(-bound // MAX_PARTS // _MIB + 1) * _MIB) if bound > PART * MAX_PARTS else PART


class Upload:
    """Uploads to `key`. `conditional`: the service refuses to replace an object when asked not to."""

    def __init__(self, client: S3Client, key: str, expected_object: ExpectedObject, *, conditional: bool) -> None:
        self._client = client
        self._key = key
        self._expected_object = expected_object
        self._condition: dict[str, Any] = {"IfNoneMatch": "*"} if conditional else {}
        self._hasher = verification.Hasher(client.pool)

    async def send(self, chunks: AsyncIterable[bytes]) -> int:
        """Upload everything; returns the size.

        Raises:
            ArtifactMismatchError: the bytes have another digest or size; nothing was stored.
            ArtifactTooLargeError: they exceed the limit; nothing was stored.
        """
        async with contextlib.aclosing(verification.regroup(chunks, self._expected_object.part)) as parts:
            first = await anext(parts, b"")
            await self._take(first)
            second = await anext(parts, None) if len(first) == self._expected_object.part else None
            if second is None:
                self._verify()
                await self._put("put_object", Body=first)
                return self._hasher.size
            upload = (await self._client.call("create_multipart_upload", Key=self._key))["UploadId"]
            heads = deque((first, second))
            del first, second  # otherwise they would stay in memory until the end
            try:
                tags = await self._send_parts(upload, heads, parts)
                self._verify()
                parts_of_it = {"UploadId": upload, "MultipartUpload": {"Parts": tags}}
                if await self._is_there() or not await self._put("complete_multipart_upload", **parts_of_it):
                    await self._abort(upload)
            except BaseException:
                await asyncio.shield(self._abort(upload))
                raise
            return self._hasher.size

    async def complete(self, upload: str, tags: Sequence[str]) -> None:
        """Complete an object from parts that others uploaded, or abort the upload when there are no tags.

        Raises:
            ArtifactMismatchError: they have another size; nothing was stored.
        """
        if not tags or await self._is_there():
            await self._abort(upload)
            return
        try:
            await self._check_parts(upload, len(tags))
            parts = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]
            if not await self._put("complete_multipart_upload", UploadId=upload, MultipartUpload={"Parts": parts}):
                await self._abort(upload)
        except S3ResponseError as refused:
            # Called again because the first reply was lost: then the object exists.
            if refused.code != "NoSuchUpload" or not await self._is_there():
                raise
        except ArtifactMismatchError:
            await self._abort(upload)
            raise

    async def _check_parts(self, upload: str, count: int) -> None:
        found, marker = 0, 0
        sizes = 0
        while True:
            answer = await self._client.call("list_parts", Key=self._key, UploadId=upload, PartNumberMarker=marker)
            parts = answer.get("Parts", [])
            found += len(parts)
            sizes += sum(part["Size"] for part in parts)
            if not answer.get("IsTruncated") or not parts:
                break
            marker = parts[-1]["PartNumber"]
        if found != count or sizes != self._expected_object.size:
            raise ArtifactMismatchError(
                f"the {found} parts put for artifact {self._expected_object.sha256} are {sizes} bytes, "
                f"not the {count} parts "
                f"with {self._expected_object.size} bytes that were announced; nothing was stored"
            )

    async def _send_parts(self, upload: str, heads: deque[bytes], rest: AsyncIterable[bytes]) -> list[dict[str, Any]]:
        """Send parts, some at the same time, in the order of their numbers; returns their tags."""
        in_flight = asyncio.Semaphore(max(1, IN_FLIGHT * PART // self._expected_object.part))
        tasks: list[asyncio.Task[dict[str, Any]]] = []

        async def send(number: int, body: bytes) -> dict[str, Any]:
            try:
                answer = await self._client.call(
                    "upload_part", Key=self._key, UploadId=upload, PartNumber=number, Body=body
                )
                return {"PartNumber": number, "ETag": answer["ETag"]}
            finally:
                in_flight.release()

        async def start(body: bytes) -> None:
            await in_flight.acquire()
            for task in tasks:
                if task.done():
                    task.result()  # raises if a part failed
            tasks.append(asyncio.create_task(send(len(tasks) + 1, body)))

        try:
            await start(heads.popleft())
            await self._take(heads[0])
            await start(heads.popleft())
            async for body in rest:
                await self._take(body)
                await start(body)
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _take(self, body: bytes) -> None:
        await self._hasher.update(body)
        limit = self._expected_object.limit
        most = self._expected_object.part * MAX_PARTS
        if self._hasher.size > (most if limit is None else min(limit, most)):
            raise ArtifactTooLargeError(self._expected_object.sha256, limit or most)

    def _verify(self) -> None:
        found = self._hasher.hexdigest()
        size = self._expected_object.size
        if found != self._expected_object.sha256 or size not in (None, self._hasher.size):
            expected = "" if size is None else f" with {size} bytes"
            raise ArtifactMismatchError(
                f"the bytes given for artifact {self._expected_object.sha256}{expected} are "
                f"{self._hasher.size} bytes with "
                f"the SHA-256 {found}: they changed while they were read or sent; nothing was stored"
            )

    async def _put(self, operation: str, **arguments: Any) -> bool:
        """Complete the object; False when another writer has done so meanwhile."""
        try:
            await self._client.call(operation, Key=self._key, **arguments, **self._condition)
        except S3ResponseError as refused:
            if self._condition and refused.exists and await self._is_there():
                return False
            if not self._condition or not (refused.exists or refused.status == 501):
                raise
            # A damaged object exists, or the service does not support the condition here: the new bytes are right.
            await self._client.call(operation, Key=self._key, **arguments)
        return True

    async def _is_there(self) -> bool:
        try:
            head = await self._client.call("head_object", Key=self._key)
        except S3ResponseError as refused:
            if refused.missing:
                return False
            raise
        return head["ContentLength"] == (self._hasher.size or self._expected_object.size)

    async def _abort(self, upload: str) -> None:
        with contextlib.suppress(Exception):  # leftovers are removed by the bucket's lifecycle or at the next start
            await self._client.call("abort_multipart_upload", Key=self._key, UploadId=upload)
