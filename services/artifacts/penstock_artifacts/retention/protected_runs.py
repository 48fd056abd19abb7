"""Runs that no policy deletes, because a registered model with an alias was made by them."""

from __future__ import annotations

from collections.abc import Iterable

from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.model_log import ModelLog


class ProtectedRuns:
    """Runs that are protected by the aliases of registered models."""

    def __init__(self, bus: Bus, source: str) -> None:
        self._models = ModelLog(bus, source)

    async def runs(self, projects: Iterable[str]) -> dict[str, str]:
        """Return the protected runs, each with the reason.

        Raises:
            UnavailableError: the models cannot be read; nothing may be deleted.
        """
        found: dict[str, str] = {}
        for project in set(projects):
            for model in await self._models.all(project):
                for alias, move in sorted(model.aliases.items()):
                    version = model.versions.get(move.version)
                    if version is not None and version.run_id:
                        found.setdefault(
                            version.run_id,
                            f"it made version {move.version} of model {model.name!r}, which has the alias {alias!r}",
                        )
        return found
