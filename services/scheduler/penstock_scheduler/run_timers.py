"""Handles expired timers of runs: records in the run's log that the time has come."""

from __future__ import annotations

import orjson

from penstock_adapters.nats.consumer import Delivery
from penstock_contracts import subjects
from penstock_scheduler.effect_handlers import EffectHandlers
from penstock_servicekit.durable_worker import DurableWorker
from penstock_servicekit.service_context import ServiceContext


def timer_worker(context: ServiceContext, effects: EffectHandlers) -> DurableWorker:
    """Build the worker that handles timers. Any replica handles any of them, in any order."""

    async def handle(delivery: Delivery) -> None:
        try:
            timer = orjson.loads(delivery.data)
            run_id, at_ms = str(timer["run_id"]), int(timer["at_ms"])
        except (ValueError, KeyError, TypeError) as error:
            await context.park(delivery.subject, delivery.data, f"unreadable timer: {error}", delivery.stream_seq)
            return
        await effects.wake(run_id, at_ms, delivery.stream_seq)

    return DurableWorker(
        context, subjects.TIMERS, subjects.WAKES_CONSUMER, handle, prefetch=_PREFETCH, concurrency=_CONCURRENCY
    )


_PREFETCH = 256
_CONCURRENCY = 64
