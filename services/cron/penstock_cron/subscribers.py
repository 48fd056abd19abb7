"""What the cron service hears on core NATS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from faststream.nats import NatsBroker
from faststream.params import Context

from penstock_contracts import subjects

_PREFIX = f"$KV.{subjects.SCHEDULES_BUCKET}."


def register(broker: NatsBroker, changed: Callable[[str], None]) -> None:
    """Hear of schedules that change; what was missed while away is found at the next connection."""

    async def schedule_changed(body: bytes, subject: Annotated[str, Context("message.raw_message.subject")]) -> None:
        del body
        changed(subject.removeprefix(_PREFIX))

    broker.subscriber(f"{_PREFIX}>", decoder=_plain)(schedule_changed)


async def _plain(message: object) -> bytes:
    return getattr(message, "body", b"")
