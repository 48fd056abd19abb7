"""The queue of attempts that wait in an executor for a free slot: by priority, with ageing, as for any limit."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable

from penstock_core.facts import AttemptRequested
from penstock_core.limits import slot_ledger
from penstock_core.shipping.messages import AttemptKey


class SlotQueue:
    """Attempts in order. `expired` is called at the `start_by` of an attempt, which stays until `remove`."""

    def __init__(self, expired: Callable[[AttemptKey], None]) -> None:
        self._expired = expired
        self._heap: list[tuple[tuple[float, float], AttemptKey]] = []
        self._waiting: dict[AttemptKey, asyncio.TimerHandle | None] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, request: AttemptRequested, since: float) -> None:
        """Add an attempt that has waited since `since`, in Unix seconds."""
        attempt = (request.run_id, request.key, request.attempt)
        timer = None
        if request.start_by is not None:
            delay = max(0.0, request.start_by - time.time())
            timer = asyncio.get_running_loop().call_later(delay, self._expired, attempt)
        self._waiting[attempt] = timer
        heapq.heappush(self._heap, (slot_ledger.turn(request.priority, since), attempt))

    def remove(self, attempt: AttemptKey) -> None:
        """Remove an attempt, if it is there."""
        timer = self._waiting.pop(attempt, None)
        if timer is not None:
            timer.cancel()
        if len(self._heap) > 2 * len(self._waiting) + 100:
            self._heap = [entry for entry in self._heap if entry[1] in self._waiting]
            heapq.heapify(self._heap)

    def next(self) -> AttemptKey | None:
        """Remove the attempt whose turn it is and return it; None when none waits."""
        while self._heap:
            _, attempt = heapq.heappop(self._heap)
            if attempt in self._waiting:
                self.remove(attempt)
                return attempt
        return None
