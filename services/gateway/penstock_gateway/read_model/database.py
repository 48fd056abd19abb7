"""The read model for an event loop: opened lazily, called in threads.

SQLAlchemy and its drivers take long to import, so they are imported in a thread and with the first query: a platform
that exists for one short run never imports them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from penstock_adapters import threads

if TYPE_CHECKING:
    from penstock_adapters.sql.read_model import ReadModelStore

P = ParamSpec("P")
T = TypeVar("T")

_READERS = 4


class ReadModel:
    """Runs queries and changes in threads.

    Args:
        where: URL of a database, or the path of a SQLite file.
    """

    def __init__(self, where: str | Path) -> None:
        self._where = where
        self._model: ReadModelStore | None = None
        self._opening = asyncio.Lock()
        self._readers = ThreadPoolExecutor(_READERS, "read-model")
        self._writer = ThreadPoolExecutor(1, "read-model-writer")

    async def read(self, query: Callable[Concatenate[ReadModelStore, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a query, such as `read(lambda model: model.page(query))`.

        Raises:
            UnavailableError: the database does not answer.
            DatabaseError: it cannot be used.
        """
        return await threads.run(self._readers, query, await self._opened(), *args, **kwargs)

    async def write(self, change: Callable[Concatenate[ReadModelStore, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a change, one at a time. Raises the errors of `read`."""
        return await threads.run(self._writer, change, await self._opened(), *args, **kwargs)

    async def start(self) -> None:
        """Do nothing: the first query opens the database."""

    async def reopen(self) -> None:
        """Close the database; the next query opens it again, and repairs it if it is damaged."""
        model, self._model = self._model, None
        if model is not None:
            await threads.run(self._writer, model.close)

    async def close(self) -> None:
        """Close all connections."""
        await self.reopen()
        for pool in (self._readers, self._writer):
            pool.shutdown(wait=False)

    async def _opened(self) -> ReadModelStore:
        async with self._opening:
            if self._model is None:
                self._model = await threads.run(self._writer, _open, self._where)
            return self._model


def _open(where: str | Path) -> ReadModelStore:
    # Heavy import, in the thread: see the module.
    from penstock_adapters.sql.read_model import open_read_model

    return open_read_model(where)
