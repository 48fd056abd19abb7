"""Runs of deployments that a principal requests, whatever their triggers."""

from __future__ import annotations

from penstock_contracts.api import RunAccepted, RunBody
from penstock_contracts.deployments import DeploymentRunBody
from penstock_gateway.deployments.deployments_service import Deployments
from penstock_gateway.runs.run_requests import RunRequests


class ManualRuns:
    """Submits runs with the pipeline, inputs and options of a deployment."""

    def __init__(self, deployments: Deployments, requests: RunRequests) -> None:
        self._deployments = deployments
        self._requests = requests

    async def submit(self, name: str, body: DeploymentRunBody, key: str | None, by: str) -> RunAccepted:
        """Submit a run of a deployment, also of a paused one.

        Raises:
            NoDeploymentError: the deployment does not exist.
            NotFoundError: its pipeline or version does not exist.
            ConflictError: the idempotency key was used for another request.
            InvalidInputsError: the inputs are invalid.
        """
        definition = (await self._deployments.get(name)).definition
        request = RunBody(
            pipeline=definition.pipeline,
            version=definition.version,
            inputs={**definition.inputs, **body.inputs},
            labels={**definition.labels, **body.labels},
            priority=definition.priority,
            deadline=definition.deadline,
        )
        return await self._requests.submit(request, key, by, {"deployment": name})
