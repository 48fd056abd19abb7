"""Ports whose types are contracts; all others are in `penstock_core.ports`."""

from __future__ import annotations

from typing import Protocol

from penstock_contracts.commands import Version


class VersionReader(Protocol):
    """Reads pipeline versions. May raise `UnavailableError`."""

    async def get(self, project: str, pipeline: str, version: int) -> Version | None:
        """Return a version, or None when it does not exist."""
        ...
