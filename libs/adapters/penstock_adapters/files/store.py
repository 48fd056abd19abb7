"""`ports.ArtifactStore` on a local folder.

Promise: an object exists complete and durable (file and folder are synced) or not at all; no partial object is ever
visible under a digest; memory stays bounded whatever an object's size.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from pathlib import Path
from stat import S_ISREG
from typing import Any, ParamSpec, TypeVar

from penstock_adapters import threads, verification
from penstock_adapters.errors import (
    ArtifactDamagedError,
    ArtifactMissingError,
    ArtifactTooLargeError,
    StoreRefusedError,
)
from penstock_adapters.files import damage, garbage_collection
from penstock_adapters.files import part as parts
from penstock_adapters.files.part import PartFile, translate_errors
from penstock_core import ids
from penstock_core.artifacts import layout
from penstock_core.ports import StoredObject

CHUNK = 2 * 1024 * 1024

_LEFT = 86400.0
"""Seconds without a write after which the file of a writer that may still run is a leftover."""

P = ParamSpec("P")
T = TypeVar("T")


class FolderArtifacts:
    """Content-addressed files under `root`, which is created on demand."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._verified = damage.Verified()

    async def prepare(self) -> None:
        """Create the folders and remove leftovers of interrupted writers.

        Raises:
            StoreRefusedError: the folder cannot be written to.
            StoreFullError: the disk is full.
        """
        await self._run(parts.clean, self.root)

    async def close(self) -> None:
        """Nothing to release."""

    async def put_file(self, path: str, sha256: str, size: int) -> None:
        """Store the file at `path`; see the port. An existing good object stays."""
        target = self.path(sha256)
        await self._run(self._put_file, Path(path), target, sha256, size)

    async def put_bytes(self, data: bytes) -> str:
        """Store bytes; returns their digest."""
        return await self._run(self._put_bytes, data)

    async def put_stream(self, chunks: AsyncIterable[bytes], sha256: str, limit: int | None = None) -> int:
        """Store a stream; see the port."""
        target = self.path(sha256)
        part = await self._run(PartFile, self.root)
        try:
            async with contextlib.aclosing(verification.regroup(chunks, CHUNK)) as regrouped:
                async for chunk in regrouped:
                    if limit is not None and part.size + len(chunk) > limit:
                        raise ArtifactTooLargeError(sha256, limit)
                    await self._run(part.write, chunk)
            await self._run(part.commit, target, sha256)
            return part.size
        finally:
            part.close()

    async def open(self, sha256: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes]:
        """Stream an object's bytes; see the port. An object that is found to be damaged is set aside."""
        path = self.path(sha256)
        if start < 0 or (end is not None and end < start):
            raise ValueError(f"invalid range: {start} to {end}")
        try:
            file = await self._run(path.open, "rb", buffering=0)
        except FileNotFoundError as error:
            raise ArtifactMissingError(sha256, str(self.root)) from error
        with file:
            size = os.fstat(file.fileno()).st_size
            stop = size if end is None else min(end, size)
            try:
                if start == 0 and stop == size:
                    chunks = self._whole(file.fileno(), size, sha256)
                else:
                    # A range cannot be compared with the digest.
                    await self._verify(file.fileno(), size, sha256)
                    chunks = self._read(file.fileno(), start, stop, None)
                async with contextlib.aclosing(chunks):
                    async for chunk in chunks:
                        yield chunk
            except ArtifactDamagedError:
                await self._run(damage.set_aside, self.root, path, file.fileno())
                raise

    async def _whole(self, descriptor: int, size: int, sha256: str) -> AsyncGenerator[bytes]:
        digest = hashlib.sha256()
        chunks = self._read(descriptor, 0, size, digest.update)
        chunks = verification.withhold_last_chunk(chunks, sha256, str(self.path(sha256)), digest.hexdigest)
        async with contextlib.aclosing(chunks):
            async for chunk in chunks:
                yield chunk
        self._verified.add(sha256, descriptor)

    async def _verify(self, descriptor: int, size: int, sha256: str) -> None:
        if not self._verified.has(sha256, descriptor):
            async with contextlib.aclosing(self._whole(descriptor, size, sha256)) as chunks:
                async for _ in chunks:
                    pass

    async def stat(self, sha256: str) -> int | None:
        """The object's size in bytes, or None when it is not there."""
        return await self._run(_size, self.path(sha256))

    async def touch(self, sha256: str) -> int | None:
        """Return the size of an object and set its time to now; see the port."""
        path = self.path(sha256)
        try:
            return await self._run(garbage_collection.touch, self.root, path)
        except StoreRefusedError:
            # It belongs to another user: write it again, as this user's.
            size = await self._run(_size, path)
            if size is not None:
                await self._run(self._put_file, path, path, sha256, size)
            return size

    async def listing(self) -> AsyncGenerator[list[StoredObject]]:
        """All objects; see the port."""
        folders = garbage_collection.listing(self.root)
        while (part := await self._run(next, folders, None)) is not None:
            yield part

    async def sweep(self, sha256: str, before: float) -> bool:
        """Remove an object that was not touched since; see the port."""
        return await self._run(garbage_collection.sweep, self.root, self.path(sha256), before)

    async def marked(self) -> AsyncGenerator[list[str]]:
        """The marked objects; see the port."""
        folders = garbage_collection.marked(self.root)
        while (part := await self._run(next, folders, None)) is not None:
            yield part

    async def tidy(self) -> None:
        """Remove leftovers of interrupted writers."""
        await self._run(parts.clean, self.root, _LEFT)

    async def put_note(self, name: str, data: bytes) -> None:
        """Store a note; see the port."""
        path = garbage_collection.note_path(self.root, name)
        await self._run(parts.put_note, self.root, path, data)

    async def notes(self, prefix: str) -> AsyncGenerator[tuple[str, bytes]]:
        """The notes whose names start with a prefix."""
        found = garbage_collection.notes(self.root, prefix)
        while (note := await self._run(next, found, None)) is not None:
            yield note

    async def delete_note(self, name: str) -> None:
        """Remove a note; idempotent."""
        path = garbage_collection.note_path(self.root, name)
        await self._run(path.unlink, missing_ok=True)

    async def delete(self, sha256: str) -> None:
        """Remove an object; idempotent."""
        path = self.path(sha256)

        def remove() -> None:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

        await self._run(remove)

    def locate(
        self, sha256: str, *, write: bool = False, size: int | None = None, expires: float = 3600.0
    ) -> dict[str, Any]:
        """`{"path"}`: where the object lies, or where a writer on this machine renames a complete file to."""
        return {"path": str(self.path(sha256))}

    async def locate_parts(self, sha256: str, size: int, expires: float = 3600.0) -> None:
        """None: a file is renamed as a whole."""
        ids.check_digest(sha256)

    async def complete_parts(self, sha256: str, upload: str, tags: Sequence[str], size: int) -> None:
        """There are no parts here.

        Raises:
            StoreRefusedError: always.
        """
        raise StoreRefusedError(f"the artifact folder {self.root} does not support multipart uploads")

    def path(self, sha256: str) -> Path:
        """Where the object of this digest lies, whether it is there or not.

        Raises:
            InvalidIdError: `sha256` is no digest, so that no name can lead out of the folder.
        """
        return self.root / layout.object_name(sha256)

    async def _run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with translate_errors(self.root):
            return await threads.run(None, function, *args, **kwargs)

    def _put_file(self, source: Path, target: Path, sha256: str, size: int) -> None:
        if parts.kept(self.root, target, size, sha256):
            return
        with source.open("rb", buffering=0) as file, contextlib.closing(PartFile(self.root)) as part:
            buffer = memoryview(bytearray(CHUNK))
            while count := file.readinto(buffer):
                part.write(buffer[:count])
            part.commit(target, sha256, size)

    def _put_bytes(self, data: bytes) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        target = self.path(sha256)
        if not parts.kept(self.root, target, len(data), sha256):
            with contextlib.closing(PartFile(self.root)) as part:
                part.write(data)
                part.commit(target, sha256, len(data))
        return sha256

    async def _read(
        self, descriptor: int, start: int, stop: int, take: Callable[[bytes], object] | None
    ) -> AsyncGenerator[bytes]:
        """Chunks, each read, and given to `take`, while the one before is at work elsewhere."""

        def read(position: int) -> bytes:
            chunk = os.pread(descriptor, min(CHUNK, stop - position), position)
            if take is not None:
                take(chunk)
            return chunk

        def ahead(position: int) -> asyncio.Future[bytes] | None:
            return asyncio.ensure_future(self._run(read, position)) if position < stop else None

        reading = ahead(start)
        try:
            while reading is not None:
                chunk = await reading
                start += len(chunk)
                reading = ahead(start) if chunk else None  # it became shorter under our hands
                if chunk:
                    yield chunk
        finally:
            if reading is not None:
                await asyncio.wait([reading])


def _size(path: Path) -> int | None:
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_size if S_ISREG(found.st_mode) else None
