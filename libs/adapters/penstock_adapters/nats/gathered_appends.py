"""Appends the single facts of concurrent callers: few on their own, many together.

Up to `DIRECT` facts are in flight on their own, without a wait. Further ones are gathered while an append is in
progress, and appended as one batch, which the server syncs once: the load makes the batches. Unlike `Appender`, it does
not retry, because its callers have clients that wait for an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from penstock_core.errors import UnavailableError
from penstock_core.facts import Fact
from penstock_core.ports import RunLog

DIRECT = 10
_BATCH = 500


class GatheredAppends:
    """Appends facts of different callers to the log."""

    def __init__(self, log: RunLog) -> None:
        self._log = log
        self._direct = 0
        self._queue: list[tuple[Fact, asyncio.Future[bool]]] = []
        self._sender: asyncio.Task[None] | None = None

    async def append(self, fact: Fact) -> bool:
        """Append a fact. Returns False if its subject already has one; raises as `RunLog.append` does for this fact."""
        if self._sender is None and self._direct < DIRECT:
            self._direct += 1
            try:
                return await self._alone(fact)
            finally:
                self._direct -= 1
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._queue.append((fact, future))
        if self._sender is None:
            self._sender = asyncio.create_task(self._send())
        return await future

    async def _alone(self, fact: Fact) -> bool:
        [written] = await self._log.append([fact])
        return written

    async def _send(self) -> None:
        while self._queue:
            part, self._queue = self._queue[:_BATCH], self._queue[_BATCH:]
            results = await self._together([fact for fact, _ in part])
            for (_, future), result in zip(part, results, strict=True):
                if future.done():
                    continue
                if isinstance(result, BaseException):
                    future.set_exception(result)
                else:
                    future.set_result(result)
        self._sender = None

    async def _together(self, facts: list[Fact]) -> Sequence[bool | BaseException]:
        try:
            return await self._log.append(facts)
        except UnavailableError as error:
            return [error] * len(facts)
        except Exception:  # the fault of one fact must not refuse the others
            return await asyncio.gather(*map(self._alone, facts), return_exceptions=True)
