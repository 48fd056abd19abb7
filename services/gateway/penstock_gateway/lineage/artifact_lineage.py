"""Lineage of an artifact: the attempts that made it and those that used it."""

from __future__ import annotations

from penstock_contracts.api import Lineage
from penstock_gateway.errors import NotFoundError
from penstock_gateway.read_model.database import ReadModel
from penstock_gateway.read_model.projector import Projector
from penstock_gateway.tracked.importer import TrackedRunImporter
from penstock_gateway.versions.pipeline_versions import PipelineVersions

PATIENCE = 3.0
"""Seconds that a request waits for the latest facts."""


class ArtifactLineage:
    """Reads the lineage of the artifacts of one project from the read model."""

    def __init__(
        self,
        read_model: ReadModel,
        projector: Projector,
        scripts: TrackedRunImporter,
        versions: PipelineVersions,
        project: str,
    ) -> None:
        self._project = project
        self._read_model = read_model
        self._projector = projector
        self._scripts = scripts
        self._versions = versions

    async def get(self, sha256: str) -> Lineage:
        """Return the lineage of an artifact, with the digest of each attempt's source bundle.

        Raises:
            NotFoundError: no fact refers to the artifact.
            UnavailableError: the log or the database does not answer.
            DatabaseError: the database cannot be used.
        """
        await self._scripts.import_runs()
        await self._projector.wait_until_current(PATIENCE)
        found = await self._read_model.read(lambda model: model.lineage(self._project, sha256))
        if found is None:
            raise NotFoundError(
                f"No run produced or used an artifact {sha256[:80]!r}", "see the outputs of a run's steps"
            )
        for row in (*found["up"], *found["down"]):
            version = await self._versions.find(row["pipeline"], row["version"])
            row["source"] = version.source if version else None
        return Lineage(**found)
