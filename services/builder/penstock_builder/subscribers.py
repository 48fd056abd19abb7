"""The requests that the builder answers; one replica handles each."""

from __future__ import annotations

from penstock_builder.service import BuilderService
from penstock_contracts import subjects
from penstock_contracts.commands import VersionReply
from penstock_servicekit.request_handlers import answer
from penstock_servicekit.service_context import ServiceContext


def register(context: ServiceContext, service: BuilderService) -> None:
    """Answer registrations of pipeline versions."""
    answer(context, subjects.BUILDER_REGISTER, service.register, lambda e, r: VersionReply(error=e, unavailable=r))
