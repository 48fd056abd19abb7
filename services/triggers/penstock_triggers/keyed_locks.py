"""Locks by key."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator


class KeyedLocks:
    """A lock for each key, while a task has it or waits for it."""

    def __init__(self) -> None:
        self._locks: dict[tuple[str, ...], tuple[asyncio.Lock, int]] = {}

    @contextlib.asynccontextmanager
    async def lock(self, name: tuple[str, ...]) -> AsyncGenerator[None]:
        """Take the lock of a key."""
        found, users = self._locks.get(name) or (asyncio.Lock(), 0)
        self._locks[name] = found, users + 1
        try:
            async with found:
                yield
        finally:
            found, users = self._locks[name]
            if users == 1:
                del self._locks[name]
            else:
                self._locks[name] = found, users - 1
