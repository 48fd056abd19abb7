"""The subscriptions of the executor on core NATS."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from faststream.nats import NatsBroker
from faststream.params import Context

from penstock_contracts import fact_codec, subjects
from penstock_core.facts import CancelRequested


def register(
    broker: NatsBroker,
    cancel: Callable[[str, str], Awaitable[None]],
    kill: Callable[[tuple[str, str, int]], Awaitable[None]],
) -> None:
    """Subscribe to cancelled runs and to killed attempts. Missed messages are found in the log later."""

    async def cancelled(body: bytes, subject: Annotated[str, Context("message.raw_message.subject")]) -> None:
        fact = fact_codec.decode(subject, body)
        if isinstance(fact, fact_codec.UnreadableFact):
            fact = fact_codec.placeholder_fact(fact)
        if isinstance(fact, CancelRequested):
            await cancel(fact.run_id, fact.reason)

    async def killed(_: bytes, subject: Annotated[str, Context("message.raw_message.subject")]) -> None:
        match subject.split("."):
            case ["kills", run_id, key, attempt] if attempt.isdecimal():
                await kill((run_id, key, int(attempt)))
            case _:
                return

    broker.subscriber(subjects.KILLS, decoder=_plain, no_reply=True)(killed)
    # The stream acknowledges the fact on the reply subject; an empty reply of FastStream could come before that.
    broker.subscriber("runs.*.*.cancel", decoder=_plain, no_reply=True)(cancelled)


async def _plain(message: object) -> bytes:
    return getattr(message, "body", b"")
