"""The subjects that the builder answers."""

from __future__ import annotations

from penstock_builder.service import BuilderService
from penstock_contracts import subjects
from penstock_contracts.commands import RegisterVersion, VersionReply
from penstock_servicekit.request_handlers import answer
from penstock_servicekit.service_context import ServiceContext


def register(context: ServiceContext, service: BuilderService) -> None:
    """Answer registrations; one replica takes each."""
    answer(context, subjects.BUILDER_REGISTER, RegisterVersion, service.register, _problem)


def _problem(why: str, again: bool) -> VersionReply:
    return VersionReply(error=why, unavailable=again)
