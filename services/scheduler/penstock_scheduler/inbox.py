"""Collects deliveries between rounds."""

from __future__ import annotations

import asyncio

from penstock_adapters.nats.consumer import Delivery


class Inbox:
    """Collects deliveries between rounds: what arrives while one round appends is the next round."""

    def __init__(self) -> None:
        self._waiting: list[Delivery] = []
        self._wake = asyncio.Event()

    def put(self, delivery: Delivery) -> None:
        """Add a delivery."""
        self._waiting.append(delivery)
        self._wake.set()

    def wake(self) -> None:
        """Have `take` return although nothing may be there."""
        self._wake.set()

    async def take(self) -> list[Delivery]:
        """Wait until there is at least one delivery, or `wake` is called, and take all."""
        await self._wake.wait()
        self._wake.clear()
        taken, self._waiting = self._waiting, []
        return taken
