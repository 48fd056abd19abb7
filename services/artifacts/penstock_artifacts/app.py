"""Composition root of the artifacts service."""

from __future__ import annotations

import asyncio
import contextlib

from penstock_adapters.files import FolderArtifacts
from penstock_adapters.nats.buckets.marks import NatsMarks
from penstock_adapters.stores import open_store
from penstock_artifacts import subscribers
from penstock_artifacts.previews.preview_cache import Previews
from penstock_artifacts.previews.sandbox import Limits
from penstock_artifacts.retention.archiver import Archiver
from penstock_artifacts.retention.collector import Collector
from penstock_artifacts.retention.deleter import Deleter
from penstock_artifacts.retention.janitor import Janitor
from penstock_artifacts.retention.protected_runs import ProtectedRuns
from penstock_artifacts.retention.roots import Roots
from penstock_artifacts.retention.run_index import RunIndex
from penstock_artifacts.service import ArtifactsService
from penstock_artifacts.settings import ArtifactsSettings
from penstock_contracts.commands import StoreInfo
from penstock_core.errors import UnavailableError
from penstock_core.ports import ArtifactStore
from penstock_servicekit.service_context import ServiceContext

_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 15.0


class ArtifactsApp:
    """The service with its store. A store that is unavailable at the start is retried until it answers."""

    def __init__(
        self,
        context: ServiceContext,
        store: ArtifactStore,
        previews: Previews,
        janitor: Janitor,
        settings: ArtifactsSettings,
    ) -> None:
        self._context = context
        self._store = store
        self._previews = previews
        self._janitor = janitor
        self._settings = settings
        self._prepared = False
        self._task: asyncio.Task[None] | None = None
        self._rounds: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Prepare the store.

        Raises:
            ArtifactError: the store is misconfigured, or its disk is full; the message says how to fix it.
        """
        try:
            await self._prepare()
        except UnavailableError as error:
            self._context.log.warning("artifact store unavailable", error=str(error))
            self._task = asyncio.create_task(self._prepare_later())
        if self._settings.janitor_interval:
            rounds = self._janitor.run(self._settings.janitor_first, self._settings.janitor_interval)
            self._rounds = self._context.task(rounds)

    async def stop(self) -> None:
        """Stop the janitor and release the store."""
        for task in (self._task, self._rounds):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        await self._janitor.close()
        await self._previews.close()
        await self._store.close()

    def ready(self) -> bool:
        """Whether the store is prepared and NATS is connected."""
        return self._prepared and self._context.bus.client.is_connected

    async def _prepare(self) -> None:
        await self._store.prepare()
        self._prepared = True

    async def _prepare_later(self) -> None:
        pause = _FIRST_PAUSE
        while not self._prepared:
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
            try:
                await self._prepare()
                self._context.log.info("artifact store available")
            except Exception as error:
                # Even an error that looks final: fixing the store must not require a restart of this service.
                self._context.log.error("artifact store not usable", error=str(error))


def build(context: ServiceContext, settings: ArtifactsSettings) -> ArtifactsApp:
    """Build the artifacts service.

    Raises:
        StoreRefusedError: the address of the store is invalid.
    """
    store = open_store(settings.artifacts_url, settings.home, settings.s3(), NatsMarks(context.bus))
    root = str(store.root) if isinstance(store, FolderArtifacts) else None
    limits = Limits(
        seconds=settings.preview_seconds, patience=4.0 * settings.preview_seconds, memory=settings.preview_memory
    )
    folder = settings.home / "previews"
    previews = Previews(store, folder, limits, settings.preview_fetch, settings.preview_room)
    # A presigned location may be used to put an object until it expires.
    grace = settings.gc_grace if root is not None else max(settings.gc_grace, settings.grant_seconds)
    kind = "granted" if root is None else "folder"
    info = StoreInfo(kind=kind, root=root, limit=settings.artifact_limit, grace=grace)
    service = ArtifactsService(store, previews, info, settings.grant_seconds)
    janitor = _janitor(context, store, settings, grace)
    subscribers.register(context, service, janitor)
    return ArtifactsApp(context, store, previews, janitor, settings)


def _janitor(context: ServiceContext, store: ArtifactStore, settings: ArtifactsSettings, grace: float) -> Janitor:
    run_index = RunIndex(context.bus)
    source = f"penstock/artifacts/{context.name}"
    archiver = Archiver(context.bus, store, settings.home / "archiving", source)
    deleter = Deleter(context.bus, store, archiver.log, run_index)
    collector = Collector(store, Roots(context.bus, store, archiver), grace)
    protected = ProtectedRuns(context.bus, source)
    return Janitor(
        context.bus, archiver, deleter, collector, run_index, protected, context.log, at_once=settings.janitor_runs
    )
