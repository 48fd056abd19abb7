"""The subjects that the builder answers."""

from __future__ import annotations

from faststream import AckPolicy
from faststream.nats import NatsBroker

from penstock_builder.service import BuilderService
from penstock_contracts import subjects
from penstock_contracts.commands import RegisterVersion, VersionReply
from penstock_core.errors import PenstockError


def register(broker: NatsBroker, service: BuilderService) -> None:
    """Answer registrations; one replica takes each."""

    async def register_version(command: RegisterVersion) -> VersionReply:
        try:
            return await service.register(command)
        except PenstockError as error:
            return VersionReply(error=f"the version could not be registered now: {error}")

    broker.subscriber(subjects.BUILDER_REGISTER, queue="builder", ack_policy=AckPolicy.MANUAL)(register_version)
