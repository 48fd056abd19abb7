"""Dynamic partitions in the stream `PARTITIONS`: each key is one fact, so adding it twice changes nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence

from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.revisions import Message, append_all
from penstock_contracts import deployment_codec, subjects
from penstock_core.deployments.backfill_facts import PartitionAdded
from penstock_core.deployments.definition import Definition
from penstock_core.deployments.partitions import (
    PARTITIONS_LIMIT,
    Partition,
    PartitionError,
    PartitionKind,
    PartitionSet,
    key_problem,
)

Name = tuple[str, str]


class PartitionLog:
    """The partitions of deployments. `source` names the writer in the CloudEvents envelope."""

    def __init__(self, bus: Bus, source: str) -> None:
        self._bus = bus
        self._source = source
        self._added: dict[Name, tuple[dict[str, None], int]] = {}

    async def of(self, project: str, deployment: str, definition: Definition) -> PartitionSet | None:
        """Return the partitions that a definition declares, as new as the last acknowledged change; None without any.

        Raises:
            UnavailableError: the log does not answer.
        """
        declared = definition.partitions
        if declared is None:
            return None
        dynamic = declared.by is PartitionKind.DYNAMIC
        return PartitionSet(declared, await self.added(project, deployment) if dynamic else ())

    async def added(self, project: str, deployment: str) -> Sequence[str]:
        """Return the keys of dynamic partitions, in the order in which they were added. Raises as `of`."""
        keys, seq = self._added.get((project, deployment)) or ({}, 0)
        for message in await self._bus.read(subjects.PARTITIONS, subjects.partitions(project, deployment), seq):
            headers = message.headers or {}
            fact = deployment_codec.read(headers["Nats-Subject"], headers.get("ce-type", ""), message.data)
            seq = max(seq, int(headers["Nats-Sequence"]))
            if isinstance(fact, PartitionAdded):
                keys[fact.key] = None
        self._added[project, deployment] = keys, seq
        return tuple(keys)

    async def add(self, project: str, deployment: str, keys: Sequence[str], by: str) -> list[str]:
        """Add dynamic partitions; returns those that are new. Raises as `of`.

        Raises:
            PartitionError: a key is not valid, or there are too many.
        """
        for key in keys:
            if problem := key_problem(key):
                raise PartitionError(problem)
        known = {*await self.added(project, deployment)}
        missing = [key for key in dict.fromkeys(keys) if key not in known]
        if len(known) + len(missing) > PARTITIONS_LIMIT:
            raise PartitionError(
                f"deployment {deployment!r} has {len(known)} partitions; the limit is {PARTITIONS_LIMIT}"
            )
        new: list[str] = []
        for key in missing:
            fact = PartitionAdded(project=project, deployment=deployment, key=key, by=by, at=time.time())
            message = Message(
                deployment_codec.subject(fact),
                deployment_codec.encode(fact),
                deployment_codec.headers(fact, self._source),
            )
            if await append_all(self._bus, [message]):
                new.append(key)
        return new

    async def find(self, project: str, deployment: str, partitions: PartitionSet, key: str, by: str) -> Partition:
        """Return the partition with a key that an event names; a dynamic one is added. Raises as `add`.

        Raises:
            PartitionError: there is no such partition.
        """
        if partitions.declared.by is PartitionKind.DYNAMIC and key not in await self.added(project, deployment):
            await self.add(project, deployment, [key], by)
            partitions = PartitionSet(partitions.declared, await self.added(project, deployment))
        return partitions.find(key, time.time())
