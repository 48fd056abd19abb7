"""Verification of streams: a whole read is compared with the digest of the object."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from concurrent.futures import Executor

from penstock_adapters import threads
from penstock_adapters.errors import ArtifactDamagedError

_IN_THREAD = 256 * 1024
"""Chunks from this size are hashed in a thread; for smaller ones the handover costs more than the hash."""


class Hasher:
    """SHA-256 of a stream; large chunks are hashed in threads, which run in parallel with the event loop."""

    def __init__(self, executor: Executor | None) -> None:
        self._executor = executor
        self._hash = hashlib.sha256()
        self.size = 0

    async def update(self, chunk: bytes | bytearray) -> None:
        """Add the next bytes."""
        self.size += len(chunk)
        if len(chunk) < _IN_THREAD:
            self._hash.update(chunk)
        else:
            await threads.run(self._executor, self._hash.update, chunk)

    def hexdigest(self) -> str:
        """The digest of everything so far."""
        return self._hash.hexdigest()


async def whole(
    chunks: AsyncGenerator[bytes], sha256: str, where: str, executor: Executor | None = None
) -> AsyncGenerator[bytes]:
    """Pass chunks on and verify their digest; see `withhold_last_chunk`.

    Raises:
        ArtifactDamagedError: the bytes have another digest.
    """
    hasher = Hasher(executor)

    async def hashed() -> AsyncGenerator[bytes]:
        hashing: asyncio.Future[None] | None = None
        try:
            async for chunk in chunks:
                if hashing is not None:
                    await hashing
                hashing = asyncio.ensure_future(hasher.update(chunk))
                yield chunk
        finally:
            if hashing is not None:
                await hashing
            await chunks.aclose()

    async with contextlib.aclosing(withhold_last_chunk(hashed(), sha256, where, hasher.hexdigest)) as passed:
        async for chunk in passed:
            yield chunk


async def withhold_last_chunk(
    chunks: AsyncGenerator[bytes], sha256: str, where: str, found: Callable[[], str]
) -> AsyncGenerator[bytes]:
    """Pass chunks on, the last one only if `found()` then is the digest.

    So a reader that gets all bytes got the right ones, even where an error at the end can no longer be reported.

    Raises:
        ArtifactDamagedError: the bytes have another digest.
    """
    last: bytes | None = None
    async with contextlib.aclosing(chunks):
        async for chunk in chunks:
            if last is not None:
                yield last
            last = chunk
    if found() != sha256:
        raise ArtifactDamagedError(sha256, found(), where)
    if last is not None:
        yield last


async def regroup(chunks: AsyncIterable[bytes], size: int) -> AsyncGenerator[bytes]:
    """The same bytes in chunks of exactly `size`, the last one shorter."""
    buffer = bytearray()
    async for chunk in chunks:
        if not buffer and len(chunk) == size:
            yield chunk
            continue
        view = memoryview(chunk)
        while len(view):
            part = view[: size - len(buffer)]
            buffer += part
            view = view[len(part) :]
            if len(buffer) == size:
                yield bytes(buffer)
                buffer.clear()
    if buffer:
        yield bytes(buffer)
