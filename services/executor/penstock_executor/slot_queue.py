"""The line of attempts that wait in an executor for a free slot, by priority with ageing, as for any limit."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable

from penstock_core.facts import AttemptRequested
from penstock_core.limits import slot_ledger
from penstock_executor.platform import Attempt


class SlotQueue:
    """Attempts in order. `too_late` is called when one must not start any more; it does not leave by itself."""

    def __init__(self, too_late: Callable[[Attempt], None]) -> None:
        self._too_late = too_late
        self._heap: list[tuple[tuple[float, float], Attempt]] = []
        self._here: dict[Attempt, asyncio.TimerHandle | None] = {}

    def __len__(self) -> int:
        return len(self._here)

    def join(self, request: AttemptRequested, since: float) -> None:
        """Wait, as one that was asked for at a time."""
        attempt = (request.run_id, request.key, request.attempt)
        timer = None
        if request.start_by is not None:
            delay = max(0.0, request.start_by - time.time())
            timer = asyncio.get_running_loop().call_later(delay, self._too_late, attempt)
        self._here[attempt] = timer
        heapq.heappush(self._heap, (slot_ledger.turn(request.priority, since), attempt))

    def leave(self, attempt: Attempt) -> None:
        """Wait no more."""
        timer = self._here.pop(attempt, None)
        if timer is not None:
            timer.cancel()
        if len(self._heap) > 2 * len(self._here) + 100:
            self._heap = [entry for entry in self._heap if entry[1] in self._here]
            heapq.heapify(self._heap)

    def next(self) -> Attempt | None:
        """Take the one whose turn it is; None when nobody waits."""
        while self._heap:
            _, attempt = heapq.heappop(self._heap)
            if attempt in self._here:
                self.leave(attempt)
                return attempt
        return None
