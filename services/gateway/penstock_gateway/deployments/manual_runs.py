"""Runs of deployments that a principal requests, whatever their triggers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from penstock_adapters.nats.partition_log import PartitionLog
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_adapters.nats.trigger_timers import Timers
from penstock_contracts import subjects
from penstock_contracts.api import RunAccepted, RunBody
from penstock_contracts.deployments import DeploymentRunBody
from penstock_core.deployments import partitions
from penstock_core.deployments.definition import Definition
from penstock_core.facts import RunRequested
from penstock_gateway.deployments.deployments_service import Deployments
from penstock_gateway.errors import UnprocessableError
from penstock_gateway.runs.run_requests import RunRequests


class ManualRuns:
    """Submits runs with the pipeline, inputs and options of a deployment."""

    def __init__(
        self,
        deployments: Deployments,
        partitions: PartitionLog,
        requests: RunRequests,
        log: NatsRunLog,
        timers: Timers,
    ) -> None:
        self._deployments = deployments
        self._partitions = partitions
        self._requests = requests
        self._log = log
        self._timers = timers

    async def submit(
        self, name: str, body: DeploymentRunBody, key: str | None, by: str, trigger: Mapping[str, str] | None = None
    ) -> RunAccepted:
        """Submit a run of a deployment, also of a paused one; `trigger` has further fields of the run's trigger.

        Raises:
            NoDeploymentError: the deployment does not exist.
            NotFoundError: its pipeline or version does not exist.
            ConflictError: the idempotency key was used for another request.
            InvalidInputsError: the inputs are invalid.
            PartitionError: the partition does not exist.
            UnprocessableError: the deployment has no partitions, or a given input is one that the partition sets.
        """
        definition = (await self._deployments.get(name)).definition
        partition, mapped = await self._partition(name, definition, body)
        request = RunBody(
            pipeline=definition.pipeline,
            version=definition.version,
            inputs={**definition.inputs, **body.inputs, **mapped},
            labels={**definition.labels, **body.labels, **partition},
            priority=definition.priority,
            deadline=definition.deadline,
        )
        accepted = await self._requests.submit(
            request, key, by, {"deployment": name, **partition, **(trigger or {})}, definition.active_limit(name)
        )
        if definition.late is not None:
            await self._watch(accepted.run_id, definition)
        return accepted

    async def _partition(
        self, name: str, definition: Definition, body: DeploymentRunBody
    ) -> tuple[dict[str, str], dict[str, Any]]:
        """What labels and trigger of the run say about its partition, and the inputs that the partition sets."""
        if not body.partition:
            return {}, {}
        found = await self._partitions.of(self._deployments.project, name, definition)
        if found is None:
            raise UnprocessableError(f"Deployment {name!r} has no partitions", "run it without one")
        partition = found.find(body.partition, time.time())
        mapped = found.inputs(partition)
        if both := [parameter for parameter in mapped if parameter in body.inputs]:
            message = "is an input that the partition sets"
            errors = [(f"inputs.{parameter}", message) for parameter in both]
            raise UnprocessableError(f"Input {both[0]!r} {message}", "remove the input", errors=errors)
        return partitions.trigger(partition), mapped

    async def _watch(self, run_id: str, definition: Definition) -> None:
        """Have it checked whether the run is late; an existing run is watched again, in case that failed before."""
        at = subjects.run(run_id, "requested")
        found = (await self._log.last([at])).get(at)
        if found is not None and isinstance(found.fact, RunRequested):
            await self._timers.set_late(found.fact, definition)
