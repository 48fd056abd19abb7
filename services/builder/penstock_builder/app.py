"""Composition root of the builder."""

from __future__ import annotations

import time

from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.kv import Bucket
from penstock_builder import subscribers
from penstock_builder.service import BuilderService
from penstock_builder.settings import BuilderSettings
from penstock_contracts import subjects
from penstock_contracts.commands import Locate, Location, Version
from penstock_core.ports import Unavailable
from penstock_servicekit.link import Link


class NatsEdges:
    """The builder's surroundings on NATS."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def has_artifact(self, sha256: str) -> bool:
        """See the protocol."""
        command = Locate(sha256=sha256).model_dump_json().encode()
        location = Location.model_validate_json((await self._bus.request(subjects.ARTIFACTS_STAT, command)).data)
        if location.error is not None:
            raise Unavailable(location.error)
        return location.size is not None

    async def announce(self, version: Version) -> None:
        """See the protocol."""
        headers = {
            "Nats-Msg-Id": f"{version.project}.{version.name}.{version.version}",
            "ce-specversion": "1.0",
            "ce-id": f"{version.project}.{version.name}.{version.version}",
            "ce-type": "penstock.version.registered.v1",
            "ce-source": "penstock/builder",
        }
        body = version.model_dump_json(exclude={"pipeline": {"nodes", "steps"}}).encode()
        await self._bus.publish(f"builds.{version.project}.{version.name}.registered", body, headers)


class BuilderApp:
    """The builder answers requests only: there is nothing to start or to finish."""

    def __init__(self, link: Link) -> None:
        self._bus = link.bus
        service = BuilderService(Bucket(link.bus, subjects.VERSIONS_BUCKET), NatsEdges(link.bus), time.time)
        subscribers.register(link.broker, service)

    async def start(self) -> None:
        """FastStream has started the subscribers."""

    async def stop(self) -> None:
        """FastStream stops the subscribers."""

    def ready(self) -> bool:
        """Whether requests can come in."""
        return self._bus.client.is_connected


def build(link: Link, settings: BuilderSettings) -> BuilderApp:
    """Put the builder together."""
    del settings
    return BuilderApp(link)
