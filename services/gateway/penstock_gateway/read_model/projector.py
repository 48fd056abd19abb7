"""Keeps the read model up to date: follows a stream, such as the log of runs, and writes its messages in batches.

In: the stream from the place that the tables hold. Out: rows, with the new place in the same transaction. Every
gateway has one for each stream; on one database they write the same rows, and the first one counts.

Facts are gathered for a moment, so that a busy log costs few transactions. A reader does not wait for that moment:
`wait_until_current` returns when the tables hold what the log held when it was called.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

from penstock_adapters.nats.bus import Bus, BusError
from penstock_adapters.nats.follower import Follower, Followers, StreamMessage
from penstock_adapters.sql.errors import DatabaseDamagedError, SequenceGapError, UnwritableFactError
from penstock_core.errors import PenstockError
from penstock_core.ports import UnavailableError
from penstock_gateway.read_model.database import ReadModel
from penstock_gateway.read_model.feeds import Feed
from penstock_servicekit.service_context import ServiceContext

_START = 2.0
"""Seconds after the start before it begins by itself: the first run of a new platform comes first."""

_OPENING = 20.0
"""Seconds that a reader waits for the database to be opened."""

_GATHER = 0.1
_RETRY = (0.5, 1.0, 2.0, 5.0)
_NO_MESSAGE = 10037


Prepare = Callable[[Sequence[StreamMessage]], Awaitable[Sequence[StreamMessage]]]
"""Called with the messages of a batch before they are written; gives those that are left to be written."""


class Projector:
    """Follows the log for as long as it runs. What it cannot write is parked; a database that is away is waited for."""

    def __init__(
        self,
        context: ServiceContext,
        followers: Followers,
        model: ReadModel,
        feed: Feed,
        prepare: Prepare | None = None,
    ) -> None:
        self._context = context
        self._bus: Bus = context.bus
        self._followers = followers
        self._model = model
        self._feed = feed
        self._prepare = prepare
        self._task: asyncio.Task[None] | None = None
        self._follower: Follower | None = None
        self._at = 0
        self._again = False
        self._readers = 0
        self._wanted = asyncio.Event()
        self._moved = asyncio.Event()
        self._open = asyncio.Event()
        self._problem = ""

    def start(self) -> None:
        """Begin, after a while or when the first reader comes."""
        self._task = self._context.task(self._run())

    async def close(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def wait_until_current(self, patience: float) -> int:
        """Wait until the tables hold what the log holds now, up to `patience` seconds.

        Returns:
            The place in the log that was waited for; the tables hold less when the time was too short.

        Raises:
            Unavailable: the log or the database does not answer.
        """
        target = await self._last()
        self._readers += 1
        self._wanted.set()
        try:
            await self._opened()
            async with asyncio.timeout(patience):
                while self._at < target and not await self._holds_all(target):
                    await self._moved.wait()
        except TimeoutError:
            return target
        finally:
            self._readers -= 1
        return self._at

    def missing(self, place: int) -> int:
        """Messages up to a place of the stream that the tables do not hold, at most."""
        return max(0, place - self._at)

    async def _opened(self) -> None:
        try:
            async with asyncio.timeout(_OPENING):
                await self._open.wait()
        except TimeoutError as error:
            raise UnavailableError(f"the read model cannot be opened: {self._problem or 'it takes long'}") from error

    async def rebuild(self) -> int:
        """Forget all rows and read the stream from its beginning; returns the place up to which there is something."""
        target = await self._last()
        await self._model.write(lambda model: model.clear(self._feed.stream))
        self._at, self._again = 0, True
        self._wanted.set()
        if self._follower is not None:
            self._follower.nudge()
        return target

    async def _run(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START):
                await self._wanted.wait()
        failures = 0
        while True:
            try:
                await self._follow()
                failures = 0
            except SequenceGapError:
                failures = 0
            except PenstockError as error:
                self._problem = str(error)
                self._context.log.warning("the read model lags behind", of=self._feed.stream, error=self._problem)
                if isinstance(error, DatabaseDamagedError):
                    await self._model.reopen()
                await asyncio.sleep(_RETRY[min(failures, len(_RETRY) - 1)])
                failures += 1

    async def _follow(self) -> None:
        stream = self._feed.stream
        info = await self._bus.api(f"STREAM.INFO.{stream}")
        created, last = str(info["created"]), int(info["state"]["last_seq"])
        self._again = False
        self._advance(await self._model.write(lambda model: model.begin(stream, created, last)))
        self._open.set()
        async with self._followers.follow(stream, [self._feed.filter], self._at, "projector") as follower:
            self._follower = follower
            while not self._again:
                items = await self._gathered(follower)
                if items:
                    await self._apply(items)
                    await self._pause()

    async def _gathered(self, follower: Follower) -> list[StreamMessage]:
        items = await follower.take(60.0)
        while follower.pending and len(items) < self._feed.batch:
            more = await follower.take(0.5)
            if not more:
                break
            items += more
        return items

    async def _apply(self, items: Sequence[StreamMessage]) -> None:
        try:
            left = await self._prepare(items) if self._prepare is not None else items
            await self._write(items[-1].seq, left)
        except UnwritableFactError as error:
            if len(items) == 1:
                (item,) = items
                await self._context.park(item.subject, item.data, str(error), item.seq)
                await self._write(item.seq, ())
                return
            half = len(items) // 2
            await self._apply(items[:half])
            await self._apply(items[half:])

    async def _write(self, upto: int, items: Sequence[StreamMessage]) -> None:
        after = self._at
        at = await self._model.write(lambda model: self._feed.apply(model, after, upto, items))
        if not self._again:
            self._advance(at)

    async def _pause(self) -> None:
        if not self._readers:
            self._wanted.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GATHER):
                    await self._wanted.wait()

    def _advance(self, at: int) -> None:
        self._at = at
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def _last(self) -> int:
        info = await self._bus.api(f"STREAM.INFO.{self._feed.stream}")
        return int(info["state"]["last_seq"])

    async def _holds_all(self, target: int) -> bool:
        """Whether nothing is left between the tables and the log's end: the last facts may have been purged."""
        if self._follower is None:
            return False
        at = self._at
        query = {"seq": at + 1, "next_by_subj": self._feed.filter}
        try:
            found = (await self._bus.api(f"STREAM.MSG.GET.{self._feed.stream}", query))["message"]
        except BusError as error:
            if error.code != _NO_MESSAGE:
                raise
            return self._at == at
        return int(found["seq"]) > target and self._at == at
