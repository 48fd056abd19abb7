"""An attempt that this executor is responsible for, and what precedes the report of its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field, replace

from penstock_adapters.nats.consumer import Delivery
from penstock_core import exhaustion
from penstock_core.errors import PenstockError
from penstock_core.facts import AttemptFinished, AttemptRequested, AttemptStarted, CacheReport, ErrorInfo, Outcome
from penstock_executor.platform import Platform

_OUTPUT_WAIT = 10.0


@dataclass(slots=True)
class ActiveAttempt:
    """An attempt that this executor is responsible for.

    Attributes:
        has_slot: whether it occupies a slot; otherwise it waits for one.
        judged: whether it is known that no other executor has it.
        owned: whether the log says that this executor owns it.
        disowned: whether the log says that another executor owns it: nothing is recorded of its process.
        submitted: whether the adapter has it.
        runner: the runner in a pod that had claimed it when it was delivered.
        released: set when this executor no longer handles it.
        shipped: done as each part of its output is stored.
    """

    request: AttemptRequested
    delivery: Delivery
    has_slot: bool = False
    judged: bool = False
    owned: bool = False
    disowned: bool = False
    submitted: bool = False
    runner: str = ""
    released: asyncio.Event = field(default_factory=asyncio.Event)
    started: AttemptStarted | None = None
    started_sent: bool = False
    timer: asyncio.TimerHandle | None = None
    ended: bool = False
    killed: bool = False
    commits: bool = False
    cache: CacheReport | None = None
    shipped: list[Awaitable[None]] = field(default_factory=list[Awaitable[None]])


async def finalize_end(platform: Platform, active: ActiveAttempt, fact: AttemptFinished) -> AttemptFinished:
    """Store what the attempt wrote, so that readers of its end find it; returns the end to report."""
    if active.shipped:
        await asyncio.wait([asyncio.ensure_future(part) for part in active.shipped], timeout=_OUTPUT_WAIT)
    await platform.drain((fact.run_id, fact.key, fact.attempt))
    if fact.outcome is Outcome.CACHED:
        return fact  # its artifacts are in the shared store
    began = time.monotonic()
    try:
        await platform.publish_artifacts(fact)
        fact = replace(fact, save_seconds=fact.save_seconds + time.monotonic() - began)
    except PenstockError as error:
        reason = ErrorInfo(type="StoreError", message=f"the artifacts of the attempt could not be stored: {error}")
        outcome = Outcome.FAILED
        if exhaustion.is_exhaustion(error):
            outcome, reason = Outcome.LOST, replace(reason, type=exhaustion.OUT_OF_RESOURCES)
        fact = replace(fact, outcome=outcome, outputs={}, artifacts={}, models=(), events=(), error=reason)
    if active.cache is not None:
        # Before the end is reported: a run that then makes the same call finds the result.
        fact = replace(fact, cache=await platform.store_result(active.request, active.cache, fact))
    return fact
