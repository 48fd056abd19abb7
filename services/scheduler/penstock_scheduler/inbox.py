"""Collects deliveries between rounds."""

from __future__ import annotations

import asyncio

from penstock_adapters.nats.consumer import Delivery


class Inbox:
    """Collects deliveries between rounds: those that arrive while one round appends make the next round."""

    def __init__(self) -> None:
        self._waiting: list[Delivery] = []
        self._wake = asyncio.Event()

    def put(self, delivery: Delivery) -> None:
        """Add a delivery."""
        self._waiting.append(delivery)
        self._wake.set()

    def wake(self) -> None:
        """Make `take` return even without deliveries."""
        self._wake.set()

    async def take(self) -> list[Delivery]:
        """Wait for at least one delivery, or for `wake`, and return all."""
        await self._wake.wait()
        self._wake.clear()
        taken, self._waiting = self._waiting, []
        return taken
