"""The read model for a service's loop: opened late, called in threads.

SQLAlchemy and its drivers take long to import, so this happens in a thread and when the first one asks: a platform that
lives for one quick run never pays for it.
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
    """Runs as SQL.

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
        """Ask the model, such as `read(lambda model: model.page(query))`.

        Raises:
            Unavailable: the database does not answer.
            DatabaseError: it cannot be used.
        """
        return await threads.run(self._readers, query, await self._opened(), *args, **kwargs)

    async def write(self, change: Callable[Concatenate[ReadModelStore, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Change the model; one change at a time. Raises as `read` does."""
        return await threads.run(self._writer, change, await self._opened(), *args, **kwargs)

    async def reopen(self) -> None:
        """Let go of the database, so that the next one who asks opens it, and mends it if it is damaged."""
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
    # In the thread: see the module.
    from penstock_adapters.sql.read_model import open_read_model

    return open_read_model(where)
