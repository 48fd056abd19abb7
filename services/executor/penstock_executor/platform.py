"""What the executor asks of its surroundings."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, Protocol

from penstock_adapters.nats.consumer import Delivery
from penstock_core.facts import ArtifactCommitted, AttemptFinished, AttemptRequested, CacheReport, CacheRule, Fact
from penstock_core.ports import AttemptEnvironment, Recorded
from penstock_core.queries.series import Point
from penstock_executor.cache import CacheLookup

Attempt = tuple[str, str, int]


class Platform(Protocol):
    """What the executor asks of its surroundings."""

    def submit(self, fact: Fact) -> asyncio.Future[bool]:
        """Append a fact, gathered with others; the future tells whether it was written."""
        ...

    async def facts(self, places: list[str]) -> dict[str, Recorded]:
        """The facts at these subjects of the log."""
        ...

    async def ack(self, delivery: Delivery) -> None:
        """The delivery is dealt with."""
        ...

    async def return_delivery(self, delivery: Delivery, delay: float) -> None:
        """Deliver it again, here or elsewhere, after `delay` seconds."""
        ...

    async def keep(self, delivery: Delivery) -> None:
        """The attempt runs: put its redelivery off."""
        ...

    async def park(self, delivery: Delivery, error: str) -> None:
        """Set an unreadable message aside."""
        ...

    async def look_up(self, attempt: AttemptRequested, rule: CacheRule) -> CacheLookup:
        """Look for an earlier result of the same call."""
        ...

    async def store_result(self, attempt: AttemptRequested, report: CacheReport, end: AttemptFinished) -> CacheReport:
        """Keep an end for later calls, if it is a good one; the report says if that was not possible."""
        ...

    async def workplace(self, attempt: AttemptRequested) -> AttemptEnvironment:
        """Where the attempt runs, made ready: source unpacked, artifacts at hand."""
        ...

    async def publish_artifacts(self, end: AttemptFinished) -> None:
        """Make the artifacts of an end available to others."""
        ...

    def output(self, attempt: Attempt, entries: list[dict[str, Any]]) -> Awaitable[None]:
        """Ship output; the awaitable is done when it is stored."""
        ...

    def measured(self, attempt: Attempt, points: list[Point]) -> Awaitable[None]:
        """Ship measurements; the awaitable is done when they are stored."""
        ...

    def commit(self, fact: ArtifactCommitted) -> None:
        """Make something that an attempt has stored available to others, and announce it."""
        ...

    async def settle(self, attempt: Attempt) -> None:
        """Return when all that an attempt has stored is announced, or cannot be."""
        ...

    def forget(self, attempt: Attempt) -> None:
        """The attempt writes no more."""
        ...
