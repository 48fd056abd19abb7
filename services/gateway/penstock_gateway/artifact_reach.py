"""Which artifacts a project can read: the store has each object once, whichever project stored it.

An object is reachable from a project that uploaded it lately, whose runs made it or got it as an input that the gateway
checked, or that has a version, a registered model or a deployment with it. As long as there is only one project,
everything is reachable, and nothing is looked up.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any

from penstock_adapters.nats.buckets.kv import Bucket
from penstock_adapters.nats.buckets.versions import Versions
from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.deployment_log import DeploymentLog
from penstock_adapters.nats.model_log import ModelLog
from penstock_contracts import subjects
from penstock_core.artifacts.reach import Reached
from penstock_gateway.projects.project_records import ProjectRecords
from penstock_gateway.read_model.database import ReadModel
from penstock_gateway.read_model.projector import Projector
from penstock_gateway.tracked.importer import TrackedRunImporter

_PATIENCE = 3.0
"""Seconds that a lookup waits for the latest facts."""

_KEEP = 60.0
"""Seconds for which an object that was reachable is not looked up again."""

_LIMIT = 10_000


def _refers(given: Any, sha256: str) -> bool:
    """Whether an input of a deployment is a reference to an object, which was checked. A text can be any digest."""
    match given:
        case {"artifact": {"sha256": found}, **rest} if not rest:
            return found == sha256
        case _:
            return False


class ArtifactReach:
    """The artifacts that one project can read."""

    def __init__(
        self,
        bus: Bus,
        records: ProjectRecords,
        read_model: ReadModel,
        projector: Projector,
        scripts: TrackedRunImporter,
        versions: Versions,
        models: ModelLog,
        deployments: DeploymentLog,
        project: str,
    ) -> None:
        self._uploads = Bucket(bus, subjects.UPLOADS_BUCKET)
        self._records = records
        self._read_model = read_model
        self._projector = projector
        self._scripts = scripts
        self._versions = versions
        self._models = models
        self._deployments = deployments
        self._project = project
        self._known: OrderedDict[str, tuple[Reached, float]] = OrderedDict()

    @property
    def everything(self) -> bool:
        """Whether all objects are reachable: there are no other projects."""
        return not self._records.several

    @property
    def upload_limit(self) -> int | None:
        """The largest artifact that the project may upload, in bytes; None without a quota."""
        return self._records.quotas(self._project).artifact_bytes

    async def find(self, sha256: str) -> Reached:
        """Return whether an object is reachable.

        Raises:
            UnavailableError: the log or the database does not answer.
        """
        if self.everything:
            return Reached.MADE
        known = self._known.get(sha256)
        if known is not None and time.monotonic() - known[1] < _KEEP:
            return known[0]
        found = await self._look_up(sha256)
        if found is not Reached.NO:
            self._remember(sha256, found)
        return found

    async def add(self, sha256: str) -> None:
        """Make an object reachable that a principal of the project has uploaded: it is until runs refer to it."""
        if not self.everything:
            await self._uploads.put(f"{self._project}.{sha256}", b"1")
            self._known.pop(sha256, None)

    async def _look_up(self, sha256: str) -> Reached:
        found = await self._used(sha256)
        if found is Reached.NO and await self._uploads.get_fresh(f"{self._project}.{sha256}") is not None:
            found = Reached.GIVEN
        if found is Reached.NO:
            found = await self._kept(sha256)
        if found is Reached.NO:
            await self._scripts.import_runs()
            await self._projector.wait_until_current(_PATIENCE)
            found = await self._used(sha256)
        return found

    async def _used(self, sha256: str) -> Reached:
        return await self._read_model.read(lambda model: model.reached(self._project, sha256))

    async def _kept(self, sha256: str) -> Reached:
        """Return whether a registered model has the object, or a principal gave it to a version or a deployment."""
        if sha256 in await self._models.held(self._project):
            return Reached.MADE
        versions, _ = await self._versions.list(self._project, None)
        if any(version.source == sha256 for version in versions):
            return Reached.GIVEN
        given = (
            value
            for (project, _), deployment in (await self._deployments.all()).items()
            if project == self._project
            for snapshot in deployment.snapshots
            if snapshot.definition is not None
            for value in snapshot.definition.inputs.values()
        )
        return Reached.GIVEN if any(_refers(value, sha256) for value in given) else Reached.NO

    def _remember(self, sha256: str, found: Reached) -> None:
        self._known[sha256] = found, time.monotonic()
        self._known.move_to_end(sha256)
        if len(self._known) > _LIMIT:
            self._known.popitem(last=False)
