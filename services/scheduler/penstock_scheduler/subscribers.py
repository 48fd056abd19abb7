"""The subscriptions of the scheduler on core NATS."""

from __future__ import annotations

import pydantic

from penstock_contracts import subjects
from penstock_contracts.commands import Replicas
from penstock_scheduler.membership import ReplicaPresence
from penstock_servicekit.request_handlers import answer, listen
from penstock_servicekit.service_context import ServiceContext


class GetReplicas(pydantic.BaseModel):
    """A request for the list of replicas."""


def register(context: ServiceContext, presence: ReplicaPresence) -> None:
    """Listen to the heartbeats of the other replicas, and answer which replicas have which shards."""

    async def report(request: GetReplicas) -> Replicas:
        return presence.report()

    listen(context, subjects.replicas("scheduler"), presence.heard)
    answer(context, subjects.SCHEDULER_REPLICAS, report, lambda error, retryable: Replicas(replicas=[]))
