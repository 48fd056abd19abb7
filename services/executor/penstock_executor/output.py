"""Ships what attempts write to the stream `LOGS`, in order for each attempt, gathered when there is much of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from penstock_adapters.nats.bus import Bus, BusError
from penstock_contracts import subjects
from penstock_contracts.commands import AttemptOutput
from penstock_core.ports import Unavailable

_TRIES = 6


class OutputShipper:
    """`ship` queues; `run` is the task that publishes. Output that cannot be stored is given up with a warning."""

    def __init__(self, bus: Bus, warn: Callable[..., None]) -> None:
        self._bus = bus
        self._warn = warn
        self._queue: asyncio.Queue[tuple[AttemptOutput, asyncio.Future[None]]] = asyncio.Queue()
        self._count: dict[tuple[str, str, int], int] = {}

    def ship(self, attempt: tuple[str, str, int], entries: list[dict[str, Any]]) -> asyncio.Future[None]:
        """Queue entries; the future is done when they are stored or given up."""
        first = self._count.get(attempt, 0)
        self._count[attempt] = first + len(entries)
        run_id, key, n = attempt
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((AttemptOutput(run_id=run_id, key=key, attempt=n, first=first, entries=entries), done))
        return done

    def forget(self, attempt: tuple[str, str, int]) -> None:
        """The attempt writes no more."""
        self._count.pop(attempt, None)

    @property
    def following(self) -> int:
        """Attempts that wrote something and are not forgotten."""
        return len(self._count)

    async def run(self) -> None:
        """Publish until cancelled, several at a time: order within an attempt is kept by `first`."""
        pending: set[asyncio.Task[None]] = set()
        while True:
            output, done = await self._queue.get()
            task = asyncio.create_task(self._publish(output, done))
            pending.add(task)
            task.add_done_callback(pending.discard)
            if len(pending) >= 64:
                await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)

    async def _publish(self, output: AttemptOutput, done: asyncio.Future[None]) -> None:
        subject = subjects.logs(output.run_id, output.key, output.attempt)
        body = output.model_dump_json().encode()
        headers = {"Nats-Msg-Id": f"{output.run_id}.{output.key}.{output.attempt}.{output.first}"}
        for attempt in range(_TRIES):
            try:
                await self._bus.publish(subject, body, headers)
                break
            except (Unavailable, BusError) as error:
                if attempt == _TRIES - 1 or isinstance(error, BusError):
                    self._warn("output was not stored", run=output.run_id, step=output.key, error=str(error))
                    break
                await asyncio.sleep(0.2 * 2**attempt)
        with contextlib.suppress(asyncio.InvalidStateError):
            done.set_result(None)
