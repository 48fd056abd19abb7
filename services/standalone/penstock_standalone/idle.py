"""When an embedded platform stops: after a time in which nothing has used it.

It is used while a command holds the shared lock on `clients.lock`, while HTTP requests are in progress or arrive, and
while a run is active. Deployments do not count: their triggers need a platform started by `penstock up`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Protocol

from penstock_standalone.state import StateFolder

_INTERVAL = 1.0
"""Seconds between two checks; less if the idle time is short."""


class Usage(Protocol):
    """What the gateway knows of the use of the platform."""

    def requests(self) -> tuple[int, int]:
        """Return how many HTTP requests have arrived, and how many are in progress."""
        ...

    async def has_active_runs(self) -> bool:
        """Return whether a run has not finished."""
        ...


async def wait_until_idle(state: StateFolder, idle: float, usage: Usage) -> None:
    """Return when nothing has used the platform for a time; commands that come later wait until it has stopped.

    Args:
        state: the state folder.
        idle: that time in seconds; 0: return when the last command has exited, also if runs are active.
        usage: requests and runs.
    """
    if idle <= 0:
        await _in_thread(state.wait_for_no_clients)
        return
    now = asyncio.get_running_loop().time
    used_at, seen = now(), usage.requests()
    while True:
        await asyncio.sleep(min(_INTERVAL, idle / 4))
        current = usage.requests()
        if current[0] != seen[0] or current[1] or state.has_clients():
            used_at, seen = now(), current
        elif now() - used_at >= idle and state.lock_clients_out():
            if not await usage.has_active_runs() and usage.requests() == seen:
                return
            state.let_clients_in()
            used_at = now()


async def _in_thread(wait: Callable[[], object]) -> None:
    """Wait for a blocking function in a daemon thread, which does not keep the process from exiting."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def run() -> None:
        wait()
        if not loop.is_closed():
            loop.call_soon_threadsafe(lambda: done.done() or done.set_result(None))

    threading.Thread(target=run, name="clients", daemon=True).start()
    await done
