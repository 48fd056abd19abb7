"""Updates the cached states of runs with many facts while they run, so that their first view is fast.

A cold view folds the whole log of a run, which takes a second for a step mapped over 10,000 items. The facts of runs
are counted as the read model is projected, and after each `EVERY` facts of a run its cached state is updated.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Sequence

from penstock_adapters.nats.follower import StreamMessage
from penstock_core.errors import PenstockError
from penstock_gateway.runs.run_states import RunStates
from penstock_servicekit.service_context import ServiceContext, cancel

EVERY = 250
"""Facts of a run between two updates."""

_RECENT = 60.0
"""Seconds since the latest fact; the read model reads older ones when it is rebuilt."""

_COUNTED = 10_000


class LargeRuns:
    """Updates the cached states of runs with many facts."""

    def __init__(self, context: ServiceContext, states: RunStates) -> None:
        self._context = context
        self._states = states
        self._counts: OrderedDict[str, int] = OrderedDict()
        self._due: dict[str, int] = {}
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start."""
        self._tasks = [self._context.task(self._run())]

    async def close(self) -> None:
        """Stop."""
        await cancel(self._tasks)

    def observe(self, messages: Sequence[StreamMessage]) -> None:
        """Count messages of the log."""
        oldest = time.time() - _RECENT
        for message in messages:
            if message.at < oldest:
                continue
            run_id = message.subject.split(".", 3)[2]
            count = self._counts[run_id] = self._counts.pop(run_id, 0) + 1
            # Runs that were evicted from the cache are left to readers: each update would read the whole log.
            if count == EVERY or (count % EVERY == 0 and self._states.last_seq(run_id)):
                self._due[run_id] = message.seq
                self._wake.set()
        while len(self._counts) > _COUNTED:
            self._counts.popitem(last=False)

    async def update(self) -> None:
        """Update the states that are due."""
        while self._due:
            run_id, sequence = self._due.popitem()
            if self._states.last_seq(run_id) >= sequence:
                continue  # a reader was faster
            with contextlib.suppress(PenstockError):  # a reader would get the error
                await self._states.get(run_id)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.update()
