"""What the executor needs from the rest of the platform."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Protocol

from penstock_adapters.nats.consumer import Delivery
from penstock_core.facts import (
    ArtifactCommitted,
    AttemptFinished,
    AttemptRequested,
    AttemptStarted,
    CacheReport,
    CacheRule,
    Fact,
)
from penstock_core.ownership import OwnerStatus
from penstock_core.ports import Recorded
from penstock_core.shipping.messages import AttemptKey, Message
from penstock_executor.cache import CacheLookup


class Platform(Protocol):
    """What the executor needs from the rest of the platform."""

    def submit(self, fact: Fact) -> asyncio.Future[bool]:
        """Append a fact, batched with others; the future's result is whether it was written."""
        ...

    async def facts(self, subjects: list[str]) -> dict[str, Recorded]:
        """The facts of the log on these subjects."""
        ...

    async def latest(self, subject: str) -> Fact | None:
        """The fact of the log on a subject, at least as new as this executor's last write; slower than `facts`."""
        ...

    @property
    def fence(self) -> int:
        """Fencing number of this executor's lease; 0 while it has no valid one."""
        ...

    async def owner_status(self, started: AttemptStarted) -> OwnerStatus:
        """What is known of the owner of an attempt."""
        ...

    async def others(self, attempt: AttemptKey) -> list[OwnerStatus]:
        """What is known of all other executors and an attempt."""
        ...

    async def ack(self, delivery: Delivery) -> None:
        """Acknowledge a delivery."""
        ...

    async def return_delivery(self, delivery: Delivery, delay: float) -> None:
        """Have a delivery come again, here or to another executor, after `delay` seconds."""
        ...

    async def extend(self, delivery: Delivery) -> None:
        """Postpone the redelivery, while the attempt is in flight."""
        ...

    async def park(self, delivery: Delivery, error: str) -> None:
        """Move an unreadable message to the dead-letter stream."""
        ...

    async def look_up(self, attempt: AttemptRequested, rule: CacheRule) -> CacheLookup:
        """Look for an earlier result of the same call."""
        ...

    async def store_result(self, attempt: AttemptRequested, report: CacheReport, end: AttemptFinished) -> CacheReport:
        """Store a successful end for later calls; the report says if that was not possible."""
        ...

    async def publish_artifacts(self, end: AttemptFinished) -> None:
        """Put the artifacts of an end into the store that all machines share."""
        ...

    def publish(self, message: Message) -> Awaitable[None]:
        """Publish a part of an attempt's output or metrics; the awaitable is done when it is stored."""
        ...

    def replace(self, message: Message) -> None:
        """Publish a message that replaces earlier ones on its subject, such as the progress of an attempt."""
        ...

    def commit(self, fact: ArtifactCommitted) -> None:
        """Put an object that an attempt has stored into the shared store, and announce it."""
        ...

    async def drain(self, attempt: AttemptKey) -> None:
        """Return when everything that an attempt has stored is announced, or cannot be."""
        ...

    def forget(self, attempt: AttemptKey) -> None:
        """Drop the state of a finished attempt."""
        ...
