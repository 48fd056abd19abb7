"""The items of a backfill by number: partitions of a deployment, or ticks of one of its cron triggers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from penstock_adapters import cron_expressions
from penstock_core.deployments import backfills, matching, partitions, ticks
from penstock_core.deployments.backfill_facts import BackfillStarted
from penstock_core.deployments.definition import CronTrigger, Definition, subscription
from penstock_core.deployments.matching import Evaluator
from penstock_core.deployments.partitions import PartitionSet
from penstock_core.errors import InputError
from penstock_core.requests import Options


class BackfillItems:
    """Keys, inputs and options of the runs of a backfill.

    Args:
        started: its first fact.
        definition: that of its deployment, at its revision.
        found: the partitions of the deployment; None if the items are ticks.
    """

    def __init__(self, started: BackfillStarted, definition: Definition, found: PartitionSet | None) -> None:
        self._started = started
        self._definition = definition
        self._fixed = {**definition.inputs, **started.inputs}
        self._partitions = found
        trigger = definition.trigger(started.trigger)
        self._trigger = trigger if isinstance(trigger, CronTrigger) else None
        self._ticks: list[float] = []
        self._rest = ticks_after(self._trigger, started.since) if self._trigger else iter(())

    @property
    def pipeline(self) -> str:
        """The pipeline that its runs execute."""
        return self._definition.pipeline

    def key(self, number: int) -> str:
        """Return the key of an item: that of its partition, or the time of its tick in RFC 3339.

        Raises:
            InputError: there is no such tick, because the rules of its time zone have changed since.
        """
        return tick_key(self._tick(number)) if self._partitions is None else self._partitions.at(number).key

    def compute_ticks(self, count: int) -> None:
        """Compute the first ticks ahead, or fewer if there are no more."""
        with contextlib.suppress(InputError):
            self._tick(count - 1)

    def inputs(self, number: int, evaluator: Evaluator) -> dict[str, Any]:
        """Return the inputs of the run of an item: of the deployment, the backfill, and its partition or tick.

        Raises:
            ExpressionError: a mapping of the cron trigger failed.
            InputError: as `key`.
        """
        if self._partitions is not None:
            return {**self._fixed, **self._partitions.inputs(self._partitions.at(number))}
        if self._trigger is None:
            raise InputError(f"deployment {self._started.deployment!r} has no cron trigger {self._started.trigger!r}")
        event = ticks.tick_event(
            self._started.project, self._started.deployment, self._started.trigger, self._tick(number)
        )
        shape = subscription(self._started.deployment, self._trigger)
        return matching.run_inputs(shape, [event], self._fixed, evaluator)

    def options(self, number: int) -> Options:
        """Return the options of the run of an item."""
        started, definition, key = self._started, self._definition, self.key(number)
        item = {partitions.LABEL: key} if self._partitions is not None else {"tick": key}
        return Options(
            trigger={
                "type": "backfill",
                "deployment": started.deployment,
                "revision": str(started.revision),
                "backfill": started.backfill,
                **item,
            },
            requested_by=started.by,
            labels={**definition.labels, backfills.LABEL: started.backfill, **item},
            priority=definition.priority,
            deadline=definition.deadline,
        )

    def _tick(self, number: int) -> float:
        while len(self._ticks) <= number:
            try:
                self._ticks.append(next(self._rest))
            except StopIteration as error:
                raise InputError(f"the trigger has no tick {number}") from error
        return self._ticks[number]


def ticks_after(trigger: CronTrigger, after: float) -> Iterator[float]:
    """The ticks of a trigger after a Unix time, without their jitter."""
    found = cron_expressions.trigger_tick(trigger, after)
    while found is not None:
        yield found
        found = cron_expressions.trigger_tick(trigger, found)


def tick_key(at: float) -> str:
    """Return the time of a tick as the key of an item."""
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
