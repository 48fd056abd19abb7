"""What the scheduler hears on core NATS."""

from __future__ import annotations

import pydantic
from faststream import AckPolicy
from faststream.nats.message import NatsMessage

from penstock_contracts import subjects
from penstock_contracts.commands import Replica, Replicas
from penstock_scheduler.membership import ReplicaPresence
from penstock_servicekit.request_handlers import answer
from penstock_servicekit.service_context import ServiceContext


class _Nothing(pydantic.BaseModel):
    """A question without content."""


def register(context: ServiceContext, presence: ReplicaPresence) -> None:
    """Hear the other replicas, and answer who lives and holds what; one replica answers for all."""

    async def heard(body: bytes) -> None:
        try:
            replica = Replica.model_validate_json(body)
        except pydantic.ValidationError as error:
            context.log.warning("unreadable sign of life", error=str(error)[:500])
            return
        await presence.heard(replica)

    async def report(_: _Nothing) -> Replicas:
        return presence.report()

    context.broker.subscriber(subjects.replicas("scheduler"), ack_policy=AckPolicy.MANUAL, decoder=_raw, no_reply=True)(
        heard
    )
    answer(context, subjects.SCHEDULER_REPLICAS, report, lambda error, again: Replicas(replicas=[]))


async def _raw(message: NatsMessage) -> bytes:
    return message.body
