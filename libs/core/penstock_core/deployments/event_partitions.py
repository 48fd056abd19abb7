"""Which partition of a deployment events are for."""

from __future__ import annotations

from collections.abc import Sequence

from penstock_core.deployments import matching, ticks
from penstock_core.deployments.definition import Subscription
from penstock_core.deployments.events import Event
from penstock_core.deployments.matching import Evaluator
from penstock_core.deployments.partitions import PartitionError, PartitionSet


def key_of(found: PartitionSet, subscription: Subscription, events: Sequence[Event], evaluator: Evaluator) -> str:
    """Return the key that the trigger's expression names; of a tick, that of the partition which ended last.

    Raises:
        ExpressionError: the expression failed, or its value is not text.
        InputError: the event is no tick.
        PartitionError: no partition had ended at the tick.
    """
    if subscription.partition:
        return matching.partition_key(subscription, events, evaluator)
    partition = found.finished_at(ticks.scheduled_at(events[-1]))
    if partition is None:
        raise PartitionError("no partition has ended at this tick, or the last one ended long before")
    return partition.key
