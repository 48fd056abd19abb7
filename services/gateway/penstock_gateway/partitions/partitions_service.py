"""The partitions of deployments, with the state of each: that of its latest run in the read model."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from penstock_adapters.nats.partition_log import PartitionLog
from penstock_contracts.backfills import (
    AddedPartitions,
    PartitionList,
    PartitionState,
    PartitionView,
)
from penstock_core.deployments.partitions import Partition, PartitionError, PartitionKind, PartitionSet
from penstock_core.errors import UnavailableError
from penstock_gateway.deployments.deployments_service import Deployments
from penstock_gateway.errors import NotFoundError, UnprocessableError
from penstock_gateway.read_model.database import ReadModel
from penstock_gateway.read_model.projector import Projector
from penstock_gateway.runs.run_search import PATIENCE

_RUNNING = ("queued", "running", "suspended")


class DeploymentPartitions:
    """Lists and adds partitions of the deployments of one project."""

    def __init__(
        self, deployments: Deployments, log: PartitionLog, read_model: ReadModel, projector: Projector
    ) -> None:
        self._deployments = deployments
        self._log = log
        self._read_model = read_model
        self._projector = projector

    async def page(self, name: str, first: int, limit: int) -> PartitionList:
        """Return the partitions of a deployment from a number on.

        Raises:
            NoDeploymentError: the deployment does not exist.
            UnprocessableError: it has no partitions.
        """
        found = await self.of(name)
        count = found.count(time.time())
        runs, lag = await self._latest_runs(name, None)
        shown = [found.at(number) for number in range(min(first, count), min(first + limit, count))]
        # Partitions that are not declared any more may have runs.
        states = await asyncio.to_thread(_count_states, found, runs, count)
        states[PartitionState.MISSING] = count - states.total()
        return PartitionList(
            by=found.declared.by.value,
            tz=found.declared.tz if found.timed else "",
            total=count,
            counts={state: states[state] for state in PartitionState},
            partitions=[_view(one, runs.get(one.key), timed=found.timed) for one in shown],
            next=first + limit if first + limit < count else None,
            lag=lag,
        )

    async def get(self, name: str, key: str) -> PartitionView:
        """Return a partition of a deployment.

        Raises:
            NoDeploymentError: the deployment does not exist.
            UnprocessableError: it has no partitions.
            NotFoundError: the partition does not exist.
        """
        found = await self.of(name)
        try:
            partition = found.find(key, time.time())
        except PartitionError as error:
            raise NotFoundError(str(error)) from error
        runs, _ = await self._latest_runs(name, [key])
        return _view(partition, runs.get(key), timed=found.timed)

    async def add(self, name: str, keys: Sequence[str], by: str) -> AddedPartitions:
        """Add dynamic partitions to a deployment; those that exist stay.

        Raises:
            NoDeploymentError: the deployment does not exist.
            UnprocessableError: its partitions are not dynamic.
            PartitionError: a key is not valid, or there are too many.
        """
        found = await self.of(name)
        if found.declared.by is not PartitionKind.DYNAMIC:
            raise UnprocessableError(
                f"Partitions of deployment {name!r} are declared by {found.declared.by.value}",
                "only dynamic partitions can be added",
            )
        return AddedPartitions(added=await self._log.add(self._deployments.project, name, keys, by))

    async def of(self, name: str) -> PartitionSet:
        """Return the partitions that a deployment declares. Raises as `page`."""
        definition = (await self._deployments.log.get(self._deployments.project, name)).require()
        found = await self._log.of(self._deployments.project, name, definition)
        if found is None:
            raise UnprocessableError(
                f"Deployment {name!r} has no partitions", "declare them, such as partitions=Partitions('day', start=…)"
            )
        return found

    async def states(self, name: str) -> dict[str, PartitionState]:
        """Return the states of the partitions that have runs, by key.

        Raises:
            UnavailableError: the database does not answer, or it lacks facts that are in the log.
        """
        runs, lag = await self._latest_runs(name, None)
        if lag:
            raise UnavailableError(f"the read model lacks {lag} facts, so the states of partitions are not known")
        return {key: _state(row) for key, row in runs.items()}

    async def _latest_runs(self, name: str, keys: Sequence[str] | None) -> tuple[dict[str, dict[str, Any]], int]:
        """The latest run of each partition, as a row of the read model, and how many facts that lacks."""
        sequence = await self._projector.wait_until_current(PATIENCE)
        project = self._deployments.project
        found = await self._read_model.read(lambda model: model.latest_of_partitions(project, name, keys))
        return found.rows, max(0, sequence - found.last_seq)


def _state(row: Mapping[str, Any] | None) -> PartitionState:
    """Return the state of a partition from its latest run."""
    if row is None:
        return PartitionState.MISSING
    if row["state"] in _RUNNING:
        return PartitionState.RUNNING
    return PartitionState.SUCCEEDED if row["state"] == "succeeded" else PartitionState.FAILED


def _count_states(found: PartitionSet, runs: Mapping[str, Mapping[str, Any]], count: int) -> Counter[PartitionState]:
    numbers = {key: found.number(key) for key in runs}
    return Counter(_state(runs[key]) for key, number in numbers.items() if number is not None and number < count)


def _view(partition: Partition, row: Mapping[str, Any] | None, *, timed: bool) -> PartitionView:
    return PartitionView(
        key=partition.key,
        state=_state(row),
        start=partition.start if timed else None,
        end=partition.end if timed else None,
        run_id=row["run_id"] if row else None,
        runs=row["runs"] if row else 0,
        finished_at=row["finished_at"] if row else None,
    )
