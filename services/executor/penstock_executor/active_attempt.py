"""An attempt in an executor's hands, and what is done before its end is known."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field, replace

from penstock_adapters.nats.consumer import Delivery
from penstock_core.errors import PenstockError
from penstock_core.facts import AttemptFinished, AttemptRequested, AttemptStarted, CacheReport, ErrorInfo, Outcome
from penstock_executor.platform import Platform

_OUTPUT_WAIT = 10.0


@dataclass(slots=True)
class ActiveAttempt:
    """An attempt in this executor's hands."""

    request: AttemptRequested
    delivery: Delivery
    begun: bool = False
    started: AttemptStarted | None = None
    started_sent: bool = False
    timer: asyncio.TimerHandle | None = None
    ended: bool = False
    killed: bool = False
    commits: bool = False
    cache: CacheReport | None = None
    output: list[Awaitable[None]] = field(default_factory=list[Awaitable[None]])


async def finalize_end(platform: Platform, active: ActiveAttempt, fact: AttemptFinished) -> AttemptFinished:
    """The end as it is reported, once what the attempt wrote is stored, so that readers of the end find it."""
    if active.output:
        await asyncio.wait([asyncio.ensure_future(part) for part in active.output], timeout=_OUTPUT_WAIT)
    await platform.settle((fact.run_id, fact.key, fact.attempt))
    if fact.outcome is Outcome.CACHED:
        return fact  # its artifacts are where everybody finds them
    try:
        await platform.publish_artifacts(fact)
    except PenstockError as error:
        message = f"its artifacts could not be stored: {error}"
        why = ErrorInfo(type="StoreError", message=message)
        fact = replace(fact, outcome=Outcome.FAILED, outputs={}, artifacts={}, models=(), error=why)
    if active.cache is not None:
        # Before the end is known: whoever acts on it and asks for the same call finds the result.
        fact = replace(fact, cache=await platform.store_result(active.request, active.cache, fact))
    return fact
