"""What an executor needs to know of a deployment to run its workers: the version, the inputs, the environment."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from penstock_adapters.mirror import Mirror
from penstock_adapters.nats.buckets.versions import Versions
from penstock_adapters.nats.model_log import ModelLog
from penstock_adapters.process import AttemptEnvironment
from penstock_contracts.commands import Version
from penstock_core import requests
from penstock_core.deployments.definition import Definition
from penstock_core.facts import AttemptRequested
from penstock_core.pipeline.values import Value
from penstock_core.requests import Inputs


class DeploymentSources:
    """Implements `Sources` on NATS and the artifact store."""

    def __init__(
        self,
        versions: Versions,
        models: ModelLog,
        mirror: Mirror,
        prepare: Callable[[AttemptRequested], Awaitable[AttemptEnvironment]],
    ) -> None:
        self._versions = versions
        self._models = models
        self._mirror = mirror
        self._prepare = prepare

    async def versions(self, project: str, definition: Definition) -> list[tuple[Version, bool]]:
        """See the protocol."""
        own = definition.version or await self._versions.latest(project, definition.pipeline)
        numbers = dict.fromkeys([own, *definition.other_versions.values()])
        found = [await self._versions.get(project, definition.pipeline, one) for one in numbers if one is not None]
        return [(one, one.version == own) for one in found if one is not None]

    async def pinned(self, project: str, definition: Definition, version: Version) -> dict[str, Value]:
        """See the protocol."""
        ports = [port for port in version.pipeline.params if port.name in definition.inputs]
        given = {port.name: definition.inputs[port.name] for port in ports}
        models = await self._models.resolve(project, requests.model_references(ports, given))
        values, _ = requests.check_parameters(ports, Inputs(given=given, models=models))
        return values

    async def prepare(self, attempt: AttemptRequested) -> AttemptEnvironment:
        """See the protocol."""
        return await self._prepare(attempt)

    async def fetch(self, wanted: list[Value]) -> None:
        """See the protocol."""
        await self._mirror.fetch(wanted)

    async def store(self, made: list[Value]) -> None:
        """See the protocol."""
        await self._mirror.put(made)
