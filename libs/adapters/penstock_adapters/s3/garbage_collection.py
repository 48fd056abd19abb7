"""Mark-and-sweep garbage collection of a bucket.

S3 cannot check and remove an object atomically, so writers and collectors coordinate through marks, which are replaced
by compare-and-set:

1. A collector marks an unreferenced object as `marked`.
2. A writer that is about to refer to a marked object sets the mark to `wanted`.
3. A collector that finds a mark older than the grace period, and the object still unreferenced, sets it to `doomed`,
   which fails if it is wanted by then; then it removes the object, then the mark.
4. A writer that finds a doomed object retries: soon it is removed and can be put again.

A collector that died in between leaves a doomed object, which another one removes later. A collector that was delayed
for longer than that after dooming an object no longer removes it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from penstock_adapters.s3.client import S3Client, S3ResponseError
from penstock_core.errors import UnavailableError
from penstock_core.ports import Mark, Marks, StoredObject

ABANDONED = 60.0
"""Seconds after which another collector may remove a doomed object."""

_PATIENCE = 5.0
"""Seconds after which a collector no longer removes an object that it doomed."""

_PAGE = 1000


async def want(marks: Marks, sha256: str) -> None:
    """Protect an object from collection for a grace period.

    Raises:
        UnavailableError: it is being removed.
    """
    while True:
        mark = await marks.get(sha256)
        if mark is None or mark.word == "wanted":
            return
        if mark.word == "doomed":
            raise UnavailableError(f"artifact {sha256} is being removed because it was unreferenced: try again")
        if await marks.put(sha256, Mark("wanted", time.time(), mark.revision)) is not None:
            return


async def sweep(marks: Marks, sha256: str, before: float, delete: Callable[[str], Awaitable[None]]) -> bool:
    """Mark or remove an unreferenced object; True when it was removed."""
    now = time.time()
    mark = await marks.get(sha256)
    if mark is None or mark.word == "wanted":
        await marks.put(sha256, Mark("marked", now, mark.revision if mark else 0))
        return False
    if mark.at >= (before if mark.word == "marked" else now - ABANDONED):
        return False
    begun = time.monotonic()
    if await marks.put(sha256, Mark("doomed", now, mark.revision)) is None:
        return False
    if time.monotonic() - begun > _PATIENCE:
        return False
    await delete(sha256)
    await marks.drop(sha256)
    return True


async def listing(client: S3Client, prefix: str) -> AsyncGenerator[list[StoredObject]]:
    """The objects whose keys end with a digest."""
    async for page in pages(client, prefix):
        found = [
            StoredObject(name, int(one["Size"]), one["LastModified"].timestamp())
            for one in page
            if len(name := one["Key"].rpartition("/")[2]) == 64
        ]
        if found:
            yield found


async def pages(client: S3Client, prefix: str) -> AsyncGenerator[list[dict[str, Any]]]:
    """The objects under a prefix."""
    more: dict[str, Any] = {}
    while True:
        answer = await client.call("list_objects_v2", Prefix=prefix, MaxKeys=_PAGE, **more)
        if found := answer.get("Contents"):
            yield found
        if not answer.get("IsTruncated"):
            return
        more = {"ContinuationToken": answer["NextContinuationToken"]}


async def get(client: S3Client, key: str) -> bytes | None:
    """Read a small object; None when it does not exist."""

    def read() -> bytes:
        answer = client.blocking("get_object", Key=key)
        with answer["Body"] as body:
            return body.read()

    try:
        return await client.run(read)
    except S3ResponseError as refused:
        if refused.missing:
            return None
        raise
