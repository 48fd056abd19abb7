"""Composition root of the artifacts service."""

from __future__ import annotations

import asyncio
import contextlib

from penstock_adapters.files import FolderArtifacts
from penstock_adapters.stores import open_store
from penstock_artifacts import subscribers
from penstock_artifacts.previews.makers import Previews
from penstock_artifacts.previews.sandbox import Limits
from penstock_artifacts.service import ArtifactsService
from penstock_artifacts.settings import ArtifactsSettings
from penstock_core.ports import ArtifactStore, Unavailable
from penstock_servicekit.link import Link

_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 15.0


class ArtifactsApp:
    """The service with its store. A store that is away at the start is tried until it is there."""

    def __init__(self, link: Link, store: ArtifactStore, previews: Previews) -> None:
        self._link = link
        self._store = store
        self._previews = previews
        self._prepared = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Make the store ready.

        Raises:
            ArtifactError: the store is set up wrongly, or its disk is full; the message says what to do.
        """
        try:
            await self._prepare()
        except Unavailable as error:
            self._link.log.warning("the artifact store is away", error=str(error))
            self._task = asyncio.create_task(self._prepare_later())

    async def stop(self) -> None:
        """Let go of the store."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._previews.close()
        await self._store.close()

    def ready(self) -> bool:
        """Whether the store was reached and requests can come in."""
        return self._prepared and self._link.bus.client.is_connected

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
                self._link.log.info("the artifact store is there")
            except Exception as error:
                # Even one that looks final: whoever sets the store right shall not have to restart this.
                self._link.log.error("the artifact store cannot be used", error=str(error))


def build(link: Link, settings: ArtifactsSettings) -> ArtifactsApp:
    """Put the artifacts service together.

    Raises:
        StoreRefused: the store's address makes no sense.
    """
    store = open_store(settings.artifacts_url, settings.home, settings.s3())
    root = str(store.root) if isinstance(store, FolderArtifacts) else None
    limits = Limits(
        seconds=settings.preview_seconds, patience=4.0 * settings.preview_seconds, memory=settings.preview_memory
    )
    folder = settings.home / "previews"
    previews = Previews(store, folder, limits, settings.preview_fetch, settings.preview_room)
    service = ArtifactsService(store, previews, root, settings.artifact_limit, settings.grant_seconds)
    subscribers.register(link, service)
    return ArtifactsApp(link, store, previews)
