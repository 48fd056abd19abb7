"""Ships what attempts write to the stream `LOGS`, and what they measure to `METRICS`, in order for each attempt."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from penstock_adapters.nats.bus import Bus, BusError
from penstock_contracts import commands, subjects
from penstock_contracts.commands import AttemptOutput
from penstock_core.ports import UnavailableError
from penstock_core.queries.series import Point

_TRIES = 6

Attempt = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class _Message:
    """A part of an attempt's output, or of its measurements. `name` tells it from all others."""

    attempt: Attempt
    subject: str
    body: bytes
    name: str


class OutputShipper:
    """`ship` and `measure` queue; `run` publishes. What cannot be stored is given up with a warning."""

    def __init__(self, bus: Bus, warn: Callable[..., None]) -> None:
        self._bus = bus
        self._warn = warn
        self._queue: asyncio.Queue[tuple[_Message, asyncio.Future[None]]] = asyncio.Queue()
        self._count: dict[Attempt, int] = {}
        self._measured: dict[Attempt, int] = {}

    def ship(self, attempt: Attempt, entries: list[dict[str, Any]]) -> asyncio.Future[None]:
        """Queue entries; the future is done when they are stored or given up."""
        first = _next(self._count, attempt, len(entries))
        run_id, key, n = attempt
        body = AttemptOutput(run_id=run_id, key=key, attempt=n, first=first, entries=entries).model_dump_json().encode()
        return self._put(_Message(attempt, subjects.logs(*attempt), body, f"{run_id}.{key}.{n}.{first}"))

    def measure(self, attempt: Attempt, points: list[Point]) -> asyncio.Future[None]:
        """Queue measurements, at least one; the future is done when they are stored or given up."""
        first = _next(self._measured, attempt, len(points))
        run_id, key, n = attempt
        body = commands.measurements(run_id, key, n, first, points)
        return self._put(_Message(attempt, subjects.metrics(*attempt), body, f"{run_id}.{key}.{n}.{first}"))

    def _put(self, message: _Message) -> asyncio.Future[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((message, done))
        return done

    def forget(self, attempt: Attempt) -> None:
        """The attempt writes no more."""
        self._count.pop(attempt, None)
        self._measured.pop(attempt, None)

    @property
    def following(self) -> int:
        """Attempts that wrote or measured something and are not forgotten."""
        return len(self._count.keys() | self._measured.keys())

    async def run(self) -> None:
        """Publish until cancelled, several at a time: order within an attempt is kept by `first`."""
        pending: set[asyncio.Task[None]] = set()
        while True:
            message, done = await self._queue.get()
            task = asyncio.create_task(self._publish(message, done))
            pending.add(task)
            task.add_done_callback(pending.discard)
            if len(pending) >= 64:
                await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)

    async def _publish(self, message: _Message, done: asyncio.Future[None]) -> None:
        for attempt in range(_TRIES):
            try:
                await self._bus.publish(message.subject, message.body, {"Nats-Msg-Id": message.name})
                break
            except (UnavailableError, BusError) as error:
                if attempt == _TRIES - 1 or isinstance(error, BusError):
                    run_id, key, _ = message.attempt
                    what = f"what is for {message.subject} was not stored"
                    self._warn(what, run=run_id, step=key, error=str(error))
                    break
                await asyncio.sleep(0.2 * 2**attempt)
        with contextlib.suppress(asyncio.InvalidStateError):
            done.set_result(None)


def _next(counts: dict[Attempt, int], attempt: Attempt, more: int) -> int:
    first = counts.get(attempt, 0)
    counts[attempt] = first + more
    return first
