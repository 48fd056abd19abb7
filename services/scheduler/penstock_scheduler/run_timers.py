"""Takes the timers of runs that fired, and says in their logs that it is that late."""

from __future__ import annotations

import asyncio

import orjson

from penstock_adapters.nats import consumer
from penstock_adapters.nats.bus import Bus, BusError
from penstock_adapters.nats.consumer import Delivery, Puller
from penstock_contracts import subjects
from penstock_core.ports import UnavailableError
from penstock_scheduler.effect_handlers import EffectHandlers
from penstock_scheduler.inbox import Inbox

_AHEAD = 256


class RunTimers:
    """The consumer of timers; any replica takes any of them."""

    def __init__(self, bus: Bus, outside: EffectHandlers) -> None:
        self._bus = bus
        self._outside = outside
        self._inbox = Inbox()
        self.puller = Puller(bus, subjects.TIMERS, subjects.WAKES_CONSUMER, self._inbox.put)

    async def run(self) -> None:
        """Take timers until cancelled."""
        self.puller.want(_AHEAD)
        while True:
            await asyncio.gather(*(self._wake(delivery) for delivery in await self._inbox.take()))

    async def _wake(self, delivery: Delivery) -> None:
        try:
            wake = orjson.loads(delivery.data)
            await self._outside.wake(str(wake["run_id"]), int(wake["at_ms"]), delivery.stream_seq)
        except (UnavailableError, BusError):
            await consumer.nak(self._bus, delivery, 1.0)
        except (ValueError, KeyError, TypeError):
            await consumer.ack(self._bus, delivery)  # nothing of ours: there is no run to wake
        else:
            await consumer.ack(self._bus, delivery)
