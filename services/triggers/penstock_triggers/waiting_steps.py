"""Finishes the attempts that wait for events. Events that arrive together are looked up together."""

from __future__ import annotations

import asyncio
import time

from penstock_adapters.nats.buckets.waits import Waits, came
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_contracts import subjects
from penstock_contracts.commands import Wait
from penstock_core.deployments.events import Event
from penstock_core.facts import RunRequested

_CHUNK = 256


class WaitingSteps:
    """Delivers events to the attempts that wait for them."""

    def __init__(self, waits: Waits, log: NatsRunLog) -> None:
        self._waits = waits
        self._log = log
        self._pending: list[tuple[Event, asyncio.Future[None]]] = []
        self._running: asyncio.Task[None] | None = None

    async def deliver(self, event: Event) -> None:
        """Finish the attempts that wait for an event.

        Raises:
            UnavailableError: the log does not answer; delivering again is safe.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.append((event, done))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        await done

    async def _run(self) -> None:
        while self._pending:
            batch, self._pending = self._pending[:_CHUNK], self._pending[_CHUNK:]
            try:
                await self._finish([event for event, _ in batch])
            except Exception as error:
                for _, done in batch:
                    if not done.done():
                        done.set_exception(error)
            else:
                for _, done in batch:
                    if not done.done():
                        done.set_result(None)

    async def _finish(self, events: list[Event]) -> None:
        waiting = await self._waits.waiting(events)
        for start in range(0, len(waiting), _CHUNK):
            part = await self._requested_before(waiting[start : start + _CHUNK])
            if part:
                await self._log.append([came(wait, event, time.time()) for wait, event in part])

    async def _requested_before(self, waiting: list[tuple[Wait, Event]]) -> list[tuple[Wait, Event]]:
        """Those whose run was requested before the event: an event that is delivered late is not for later runs."""
        names = sorted({subjects.run(wait.run_id, "requested") for wait, _ in waiting})
        records = (await self._log.last(names)).values()
        requested = {
            record.fact.run_id: record.fact.requested_at for record in records if isinstance(record.fact, RunRequested)
        }
        return [
            (wait, event) for wait, event in waiting if requested.get(wait.run_id, float("inf")) <= event.received_at
        ]
