"""The artifacts service: gives processes the locations where they can get and put the bytes of artifacts themselves.

In: requests about objects. Out: paths on this machine, presigned URLs, previews. Only this service has the credentials
of the store, and it parses no bytes of an object in its own process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from penstock_adapters.errors import ArtifactTooLargeError
from penstock_artifacts.previews.preview_cache import Previews
from penstock_contracts.commands import Complete, Locate, Location, StoreInfo
from penstock_contracts.previews import MakePreview, PreviewReply
from penstock_core.artifacts import folders
from penstock_core.errors import PenstockError, UnavailableError
from penstock_core.ports import ArtifactStore

PATIENCE = 4.0
"""Seconds that the store may take to answer: less than the timeout of the callers."""

_AT_ONCE = 32

T = TypeVar("T")


async def touch_parts(store: ArtifactStore, sha256: str) -> bool:
    """Protect the objects that a folder's manifest refers to from garbage collection; False when one is missing."""
    manifest = b"".join([chunk async for chunk in store.open(sha256, 0, folders.MANIFEST_LIMIT + 1)])
    try:
        objects = folders.decode(manifest).objects()
    except PenstockError:
        return True  # not a manifest, which its readers report
    for start in range(0, len(objects), _AT_ONCE):
        sizes = await asyncio.gather(*(store.touch(one) for one in objects[start : start + _AT_ONCE]))
        if None in sizes:
            return False
    return True


class ArtifactsService:
    """Handles requests about one store, which `info` describes."""

    def __init__(self, store: ArtifactStore, previews: Previews, info: StoreInfo, grant_seconds: float) -> None:
        self._store = store
        self._previews = previews
        self._info = info
        self._grant_seconds = grant_seconds

    async def store(self) -> StoreInfo:
        """Return how attempts reach the store."""
        return self._info

    async def stat(self, command: Locate) -> Location:
        """Return an object's size; None when it, or an object that its manifest refers to, is missing.

        Raises:
            UnavailableError: the store does not answer.
        """
        if not command.keep:
            return Location(size=await self._soon(self._store.stat(command.sha256)))
        size = await self._soon(self._store.touch(command.sha256))
        if size is not None and command.folder:
            size = size if await touch_parts(self._store, command.sha256) else None
        return Location(size=size)

    async def locate(self, command: Locate) -> Location:
        """Return where to get or put an object. A `size` in the reply to a put means that the object exists already.

        Raises:
            UnavailableError: the store does not answer.
            ArtifactError: the object may not be put, or the store is misconfigured.
        """
        limit = self._info.limit
        if command.write and limit is not None and (command.size or 0) > limit:
            raise ArtifactTooLargeError(command.sha256, limit)
        look = self._store.touch if command.write else self._store.stat
        there = await self._soon(look(command.sha256))
        if there is None and not command.write:
            return Location(error=f"artifact {command.sha256} is not in the store")
        if command.write and command.parts and there is None and command.size is not None:
            parts = await self._soon(
                self._store.locate_parts(command.sha256, command.size, expires=self._grant_seconds)
            )
            if parts is not None:
                return Location(**parts)
        place = self._store.locate(command.sha256, write=command.write, size=command.size, expires=self._grant_seconds)
        return Location(**place, size=there)

    async def preview(self, command: MakePreview) -> PreviewReply:
        """Return the preview of an object; empty when the object does not exist.

        Raises:
            UnavailableError: the store does not answer.
            ArtifactError: the object cannot be read.
        """
        size = await self._soon(self._store.stat(command.sha256))
        if size is None:
            return PreviewReply()
        return PreviewReply(preview=await self._previews.get(command, size))

    async def complete(self, command: Complete) -> Location:
        """Complete an object from its uploaded parts; its size is in the reply.

        Raises:
            UnavailableError: the store does not answer.
            ArtifactError: the parts are not the object that was announced.
        """
        await self._soon(self._store.complete_parts(command.sha256, command.upload, command.tags, command.size))
        if not command.tags:
            return Location()
        # Somebody else may have put it long ago.
        if await self._soon(self._store.touch(command.sha256)) is None:
            raise UnavailableError(f"artifact {command.sha256} was deleted right after its upload: upload it again")
        return Location(size=command.size)

    async def _soon(self, call: Awaitable[T]) -> T:
        """Return the call's result if it comes before the caller's timeout."""
        task = asyncio.ensure_future(call)
        done, _ = await asyncio.wait([task], timeout=PATIENCE)
        if not done:
            task.add_done_callback(lambda late: late.cancelled() or late.exception())
            raise UnavailableError(f"the artifact store did not answer within {PATIENCE:g} s: try again")
        return task.result()
