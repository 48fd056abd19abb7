"""Reads that concurrent callers share, although each must see everything that was written before its call.

A read that is in progress may have missed a write, so a caller gets the next one, with all others that arrive until it
begins: under load one read serves many callers, and a single caller waits for no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class SharedReads(Generic[T]):
    """Calls `read` with a key, at most once at a time for each key."""

    def __init__(self, read: Callable[[str], Coroutine[Any, Any, T]]) -> None:
        self._read = read
        self._running: dict[str, asyncio.Task[T]] = {}
        self._next: dict[str, asyncio.Task[T]] = {}

    async def get(self, key: str) -> T:
        """Return the result of a read that begins after this call, or raise its error."""
        task = self._next.get(key)
        if task is None:
            task = self._next[key] = asyncio.create_task(self._after(key, self._running.get(key)))
            task.add_done_callback(_retrieve)
        return await asyncio.shield(task)  # a cancelled caller leaves the read to the others

    async def _after(self, key: str, running: asyncio.Task[T] | None) -> T:
        if running is not None:
            await asyncio.wait([running])
        task = self._running[key] = self._next.pop(key)
        try:
            return await self._read(key)
        finally:
            if self._running.get(key) is task:
                del self._running[key]


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Take the error of a read whose callers were all cancelled, so that it is not logged as lost."""
    if not task.cancelled():
        task.exception()
