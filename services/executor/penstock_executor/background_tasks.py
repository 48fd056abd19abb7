"""Background tasks of the executor. A failure is logged and affects no other task."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class BackgroundTasks:
    """Tasks that nobody awaits."""

    def __init__(self, warn: Callable[..., None]) -> None:
        self._warn = warn
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Awaitable[None]) -> None:
        """Start a task."""
        task: asyncio.Task[None] = asyncio.ensure_future(work)  # type: ignore[assignment]
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def wait(self, timeout: float) -> None:
        """Wait until all tasks are done, for at most `timeout` seconds."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._warn("background task failed", error=repr(error))
