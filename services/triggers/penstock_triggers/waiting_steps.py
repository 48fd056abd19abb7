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
            part = await self._first_after_request(waiting[start : start + _CHUNK])
            if part:
                await self._log.append([came(wait, event, time.time()) for wait, event in part])

    async def _first_after_request(self, waiting: list[tuple[Wait, list[Event]]]) -> list[tuple[Wait, Event]]:
        """Each wait with the first event that arrived after its run was requested; earlier ones are for others."""
        names = sorted({subjects.run(wait.run_id, "requested") for wait, _ in waiting})
        facts = [record.fact for record in (await self._log.last(names)).values()]
        requested = {fact.run_id: fact.requested_at for fact in facts if isinstance(fact, RunRequested)}
        found: list[tuple[Wait, Event]] = []
        for wait, events in waiting:
            since = requested.get(wait.run_id, float("inf"))
            found += [(wait, event) for event in events if event.received_at >= since][:1]
        return found
