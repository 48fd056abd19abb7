"""Keeps a view of all objects with a label: list, then watch, and list again when the watch cannot continue.

Promises: `objects` is at most one broken watch behind the cluster; a change that was missed while the watch was broken
is reported by the next list. Handlers look at the present state only, so repeated and skipped events do no harm.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from penstock_adapters.argo.api import ApiError, GoneError
from penstock_core.errors import UnavailableError

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 30.0

Json = dict[str, Any]
V = TypeVar("V")


class Watched(Protocol):
    """The part of the Kubernetes API that an informer needs."""

    async def list(self, path: str, selector: str) -> tuple[list[Json], str]:
        """See `KubernetesApi`."""
        ...

    def watch(self, path: str, selector: str, version: str) -> Any:
        """See `KubernetesApi`."""
        ...


class Informer(Generic[V]):
    """Views of the objects at `path` with the labels of `selector`, by name.

    Args:
        api: the connection.
        path: path of the objects in the API.
        selector: selects by labels.
        view: makes the view of an object.
        changed: called with the name and the new view of an object that has changed; with None if it was deleted.
        warn: writes to the log of the service.
    """

    def __init__(
        self,
        api: Watched,
        path: str,
        selector: str,
        view: Callable[[Json], V],
        changed: Callable[[str, V | None], None],
        warn: Callable[..., None],
    ) -> None:
        self._api = api
        self._path = path
        self._selector = selector
        self._view = view
        self._changed = changed
        self._warn = warn
        self.objects: dict[str, V] = {}
        self.lists = 0
        """How often all objects were listed."""
        self.synced = asyncio.Event()
        """Set once all objects were listed."""

    async def run(self) -> None:
        """Follow the objects until cancelled."""
        pause = FIRST_PAUSE
        while True:
            try:
                version = await self._list()
                while True:
                    version = await self._follow(version)
                    pause = FIRST_PAUSE
            except GoneError:
                self._warn("watch is too old, listing again", path=self._path)
            except (UnavailableError, ApiError) as error:
                self._warn("watch ended, listing again", path=self._path, error=str(error))
            # Replicas whose watches broke at the same moment do not list at the same moment.
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - not for security
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _list(self) -> str:
        items, version = await self._api.list(self._path, self._selector)
        found = {item["metadata"]["name"]: self._view(item) for item in items}
        self.lists += 1
        before, self.objects = self.objects, found
        for name in before.keys() - found.keys():
            self._changed(name, None)
        for name, view in found.items():
            if before.get(name) != view:
                self._changed(name, view)
        self.synced.set()
        return version

    async def _follow(self, version: str) -> str:
        """Watch until the server ends the watch; returns the version at which the next one continues."""
        async for kind, item in self._api.watch(self._path, self._selector, version):
            version = item["metadata"]["resourceVersion"]
            if kind == "BOOKMARK":
                continue
            name = item["metadata"]["name"]
            view = self._view(item)
            if kind == "DELETED":
                self.objects[name] = view  # its last state, for the handler
                self._changed(name, view)
                del self.objects[name]
                self._changed(name, None)
            elif self.objects.get(name) != view:
                self.objects[name] = view
                self._changed(name, view)
        return version
