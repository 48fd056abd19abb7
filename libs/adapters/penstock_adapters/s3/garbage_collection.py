"""Objects of a bucket that go, and those that are kept from going.

S3 cannot look at an object and remove it at once, so writers and sweepers talk through marks, each replaced only where
it is still what was read:

1. A sweeper that finds an object which nothing names marks it.
2. Whoever is about to name an object and finds it marked says that it is wanted.
3. A sweeper that finds a mark of before its grace period, and the object still named by nothing, dooms it, which fails
   if it is wanted meanwhile; then it removes the object, then the mark.
4. Whoever finds it doomed comes again: in a moment it is gone and can be put anew.

A sweeper that died in between leaves a doomed object; another one ends that later. One that was held up for longer
than that after it doomed an object does not remove it any more.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from penstock_adapters.s3.client import S3Client, S3ResponseError
from penstock_core.errors import UnavailableError
from penstock_core.ports import Mark, Marks, StoredObject

ABANDONED = 60.0
"""Seconds after which a doomed object is another sweeper's to remove."""

_PATIENCE = 5.0
"""Seconds after which a sweeper does not trust that it is still the one who removes what it doomed."""

_PAGE = 1000


async def want(marks: Marks, sha256: str) -> None:
    """Keep an object from being swept for a grace period.

    Raises:
        Unavailable: it is being removed right now.
    """
    while True:
        mark = await marks.get(sha256)
        if mark is None or mark.word == "wanted":
            return
        if mark.word == "doomed":
            raise UnavailableError(f"artifact {sha256} is just being removed, since nothing named it: try again")
        if await marks.put(sha256, Mark("wanted", time.time(), mark.revision)) is not None:
            return


async def sweep(marks: Marks, sha256: str, before: float, delete: Callable[[str], Awaitable[None]]) -> bool:
    """One step on the way of an object that nothing names; True when it is gone."""
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
    """What the bucket holds under a prefix."""
    more: dict[str, Any] = {}
    while True:
        answer = await client.call("list_objects_v2", Prefix=prefix, MaxKeys=_PAGE, **more)
        if found := answer.get("Contents"):
            yield found
        if not answer.get("IsTruncated"):
            return
        more = {"ContinuationToken": answer["NextContinuationToken"]}


async def get(client: S3Client, key: str) -> bytes | None:
    """A small object's bytes, None when it is not there."""

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
