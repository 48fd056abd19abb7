"""Runs of deployments that a principal requests, whatever their triggers."""

from __future__ import annotations

import time
from typing import Any

from penstock_adapters.nats.partition_log import PartitionLog
from penstock_contracts.api import RunAccepted, RunBody
from penstock_contracts.deployments import DeploymentRunBody
from penstock_core.deployments import partitions
from penstock_core.deployments.definition import Definition
from penstock_gateway.deployments.deployments_service import Deployments
from penstock_gateway.errors import UnprocessableError
from penstock_gateway.runs.run_requests import RunRequests


class ManualRuns:
    """Submits runs with the pipeline, inputs and options of a deployment."""

    def __init__(self, deployments: Deployments, partitions: PartitionLog, requests: RunRequests) -> None:
        self._deployments = deployments
        self._partitions = partitions
        self._requests = requests

    async def submit(self, name: str, body: DeploymentRunBody, key: str | None, by: str) -> RunAccepted:
        """Submit a run of a deployment, also of a paused one.

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
        return await self._requests.submit(request, key, by, {"deployment": name, **partition})

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
