"""Batches the facts that many parts of a process append at the same time.

A single fact is sent at once. While an append is in progress, others are queued and sent together with the next one:
the load makes the batches, without a timer. While the server is unavailable, appends are retried: appending twice is
safe, losing an end is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from penstock_core.errors import UnavailableError
from penstock_core.facts import Fact
from penstock_core.ports import RunLog

_BATCH = 500


class Appender:
    """`submit` returns a future of "was it written?"; `run` is the task that sends."""

    def __init__(self, log: RunLog, on_error: Callable[[Exception], None]) -> None:
        self._log = log
        self._on_error = on_error
        self._queue: list[tuple[Fact, asyncio.Future[bool]]] = []
        self._wake = asyncio.Event()

    def submit(self, fact: Fact) -> asyncio.Future[bool]:
        """Queue a fact. The future's result is False when its subject already has a fact."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._queue.append((fact, future))
        self._wake.set()
        return future

    async def drain(self) -> None:
        """Wait until everything that was submitted so far is written."""
        futures = [future for _, future in self._queue]
        if futures:
            await asyncio.wait(futures)

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                part = self._queue[:_BATCH]
                await self._send(part)
                del self._queue[: len(part)]

    async def _send(self, part: list[tuple[Fact, asyncio.Future[bool]]]) -> None:
        delay = 0.05
        while True:
            try:
                written = await self._log.append([fact for fact, _ in part])
                break
            except UnavailableError as error:
                self._on_error(error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, 2.0)
            except Exception as error:
                # A final refusal, for example of a body over the server's limit: each fact is tried alone, and the
                # future of the refused one gets the error.
                if len(part) == 1:
                    if not part[0][1].done():
                        part[0][1].set_exception(error)
                    return
                for single in part:
                    await self._send([single])
                return
        for (_, future), was_written in zip(part, written, strict=True):
            if not future.done():
                future.set_result(was_written)
