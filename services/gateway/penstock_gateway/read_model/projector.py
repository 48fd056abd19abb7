"""Keeps the read model up to date: follows a stream, such as the log of runs, and writes its messages in batches.

In: the stream from the sequence of the tables. Out: rows, with the new sequence in the same transaction. Every gateway
has one projector per stream; on a shared database they write the same rows, and the first one counts.

Messages are batched for a moment, so a busy log costs few transactions. A reader does not wait for that moment:
`wait_until_current` returns when the tables contain everything that the stream contained when it was called.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.follower import Follower, Followers, StreamMessage
from penstock_adapters.sql.errors import DatabaseDamagedError, SequenceGapError, UnwritableFactError
from penstock_core.errors import PenstockError, UnavailableError
from penstock_gateway.read_model.database import ReadModel
from penstock_gateway.read_model.feeds import Feed
from penstock_servicekit.service_context import ServiceContext

_START = 2.0
"""Seconds after the start until it follows the stream without a reader: the first run of a platform has priority."""

_OPENING = 20.0
"""Seconds that a reader waits until the database is open."""

_BATCH_DELAY = 0.1
_RETRY = (0.5, 1.0, 2.0, 5.0)


Prepare = Callable[[Sequence[StreamMessage]], Awaitable[Sequence[StreamMessage]]]
"""Called with the messages of a batch before they are written; returns those that are still to be written."""


class Projector:
    """Follows a stream while it runs. Messages that cannot be written are parked; a missing database is retried.

    `observe` is called with the messages that were written.
    """

    def __init__(
        self,
        context: ServiceContext,
        followers: Followers,
        model: ReadModel,
        feed: Feed,
        checked: asyncio.Event,
        prepare: Prepare | None = None,
        observe: Callable[[Sequence[StreamMessage]], None] | None = None,
    ) -> None:
        self._context = context
        self._bus: Bus = context.bus
        self._followers = followers
        self._model = model
        self._feed = feed
        self._checked = checked
        self._prepare = prepare
        self._observe = observe
        self._task: asyncio.Task[None] | None = None
        self._follower: Follower | None = None
        self._at = 0
        self._restart = False
        self._readers = 0
        self._wanted = asyncio.Event()
        self._advanced = asyncio.Event()
        self._open = asyncio.Event()
        self._problem = ""

    async def start(self) -> None:
        """Start to follow, after a moment or with the first reader."""
        self._task = self._context.task(self._run())

    async def close(self) -> None:
        """Stop to follow."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def wait_until_current(self, patience: float) -> int:
        """Wait until the tables contain what the stream contains now, at most `patience` seconds.

        Returns:
            The awaited sequence; after a timeout the tables lag behind it.

        Raises:
            UnavailableError: the stream or the database does not answer.
        """
        target = await self._last()
        self._readers += 1
        self._wanted.set()
        try:
            await self._opened()
            async with asyncio.timeout(patience):
                while self._at < target and not await self._contains_all(target):
                    await self._advanced.wait()
        except TimeoutError:
            return target
        finally:
            self._readers -= 1
        return self._at

    def missing(self, sequence: int) -> int:
        """Return how many messages up to a sequence the tables may lack."""
        return max(0, sequence - self._at)

    async def _opened(self) -> None:
        try:
            async with asyncio.timeout(_OPENING):
                await self._open.wait()
        except TimeoutError as error:
            raise UnavailableError(f"the read model cannot be opened: {self._problem or 'timeout'}") from error

    async def rebuild(self) -> int:
        """Delete all rows and read the stream from its beginning; return the last sequence of the stream."""
        target = await self._last()
        await self._model.write(lambda model: model.clear(self._feed.stream))
        self._start_again()
        return target

    async def reread(self) -> None:
        """Read the stream from its beginning, without deleting rows."""
        await self._model.write(lambda model: model.reread(self._feed.stream))
        self._start_again()

    def _start_again(self) -> None:
        self._at, self._restart = 0, True
        self._wanted.set()
        if self._follower is not None:
            self._follower.nudge()

    async def _run(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START):
                await self._wanted.wait()
        # A truncated log is noticed before its new messages take the sequence numbers of lost ones.
        await self._checked.wait()
        failures = 0
        while True:
            try:
                await self._follow()
                failures = 0
            except SequenceGapError:
                failures = 0
            except PenstockError as error:
                self._problem = str(error)
                self._context.log.warning(
                    "read model cannot be updated; retrying", stream=self._feed.stream, error=self._problem
                )
                if isinstance(error, DatabaseDamagedError):
                    await self._model.reopen()
                await asyncio.sleep(_RETRY[min(failures, len(_RETRY) - 1)])
                failures += 1

    async def _follow(self) -> None:
        stream = self._feed.stream
        info = await self._bus.api(f"STREAM.INFO.{stream}")
        created, last = str(info["created"]), int(info["state"]["last_seq"])
        self._restart = False
        self._advance(await self._model.write(lambda model: model.begin(stream, created, last)))
        self._open.set()
        async with self._followers.follow(stream, [self._feed.filter], self._at, "projector") as follower:
            self._follower = follower
            while not self._restart:
                items = await self._batch(follower)
                if items:
                    await self._apply(items)
                    if self._observe is not None:
                        self._observe(items)
                    await self._pause()

    async def _batch(self, follower: Follower) -> list[StreamMessage]:
        items = await follower.take(60.0)
        while follower.pending and len(items) < self._feed.batch:
            more = await follower.take(0.5)
            if not more:
                break
            items += more
        return items

    async def _apply(self, items: Sequence[StreamMessage]) -> None:
        try:
            remaining = await self._prepare(items) if self._prepare is not None else items
            await self._write(items[-1].seq, remaining)
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
        if not self._restart:
            self._advance(at)

    async def _pause(self) -> None:
        if not self._readers:
            self._wanted.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_BATCH_DELAY):
                    await self._wanted.wait()

    def _advance(self, at: int) -> None:
        self._at = at
        advanced, self._advanced = self._advanced, asyncio.Event()
        advanced.set()

    async def _last(self) -> int:
        info = await self._bus.api(f"STREAM.INFO.{self._feed.stream}")
        return int(info["state"]["last_seq"])

    async def _contains_all(self, target: int) -> bool:
        """Return whether no message remains up to the end of the stream: the last ones may have been purged."""
        if self._follower is None:
            return False
        at = self._at
        found = await self._bus.next_seq(self._feed.stream, self._feed.filter, at)
        return (found is None or found > target) and self._at == at


class ReadModelRebuild:
    """Rebuilds all tables of the read model."""

    def __init__(self, facts: Projector, series: Projector) -> None:
        self._facts = facts
        self._series = series

    async def start(self) -> int:
        """Start to rebuild; return the last sequence of the log."""
        await self._series.rebuild()
        return await self._facts.rebuild()
