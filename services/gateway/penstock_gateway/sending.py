"""Sending while somebody listens: work for a client that has gone is stopped at once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from starlette.types import Receive


async def while_connected(receive: Receive, work: Coroutine[None, None, None], *ends: asyncio.Task[object]) -> bool:
    """Run `work` until it is done, the client has gone, or one of `ends` is done; True when the work was done.

    Whatever ends it, nothing of it goes on afterwards. Errors of the work are raised.
    """
    task = asyncio.create_task(work)
    others = [asyncio.create_task(_gone(receive)), *ends]
    try:
        await asyncio.wait([task, *others], return_when=asyncio.FIRST_COMPLETED)
        done = task.done()
    finally:
        for other in (task, *others):
            other.cancel()
        results = await asyncio.gather(task, *others, return_exceptions=True)
    if isinstance(results[0], Exception):
        raise results[0]
    return done


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
