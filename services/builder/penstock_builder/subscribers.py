"""The subjects that the builder answers."""

from __future__ import annotations

from penstock_builder.service import BuilderService
from penstock_contracts import subjects
from penstock_contracts.commands import RegisterVersion, VersionReply
from penstock_servicekit.answers import answer
from penstock_servicekit.link import Link


def register(link: Link, service: BuilderService) -> None:
    """Answer registrations; one replica takes each."""
    answer(link, subjects.BUILDER_REGISTER, RegisterVersion, service.register, _problem)


def _problem(why: str, again: bool) -> VersionReply:
    return VersionReply(error=why, unavailable=again)
