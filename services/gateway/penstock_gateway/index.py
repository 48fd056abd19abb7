"""The list of runs, newest first, in memory: filled from the log on first use and kept up to date after.

It is behind this one class so that a read model in a database can take its place. Pages are cut by key
(`requested_at`, run id) and not by number, so a page stays the same page while new runs come in.
"""

from __future__ import annotations

import asyncio
import base64
import bisect
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from structlog.typing import FilteringBoundLogger

from penstock_adapters.nats.follow import Followers, Item
from penstock_contracts import events, subjects
from penstock_core.errors import InputError, PenstockError
from penstock_core.facts import RunFinished, RunRequested
from penstock_core.ports import Unavailable

FILTERS = ("runs.*.*.requested", "runs.*.*.finished")
STATES = ("queued", "running", "succeeded", "failed", "cancelled")
_RETRY = 1.0
_AT_ONCE = 64

Key = tuple[float, str]


@dataclass(slots=True)
class Entry:
    """One run of the list. `state` is empty until the run is finished; `begun` when a step is known to be decided."""

    run_id: str
    project: str
    pipeline: str
    version: int
    requested_at: float
    labels: dict[str, str] = field(default_factory=dict[str, str])
    trigger: dict[str, str] = field(default_factory=dict[str, str])
    state: str = ""
    begun: bool = False
    finished_at: float | None = None
    error: str | None = None

    @property
    def key(self) -> Key:
        """Place in the list."""
        return (self.requested_at, self.run_id)

    @property
    def name(self) -> str:
        """The run's state in one word, as users see it."""
        return self.state or ("running" if self.begun else "queued")

    def summary(self) -> dict[str, Any]:
        """The fields of `api.RunSummary`."""
        return {
            "run_id": self.run_id,
            "project": self.project,
            "pipeline": self.pipeline,
            "version": self.version,
            "state": self.name,
            "requested_at": self.requested_at,
            "finished_at": self.finished_at,
            "labels": self.labels,
            "trigger": self.trigger,
            "error": self.error,
        }


class InvalidCursor(InputError):
    """The cursor is none that a page gave."""


class RunIndex:
    """All runs of the log. `has_steps` says whether the log holds a fact about any step of a run."""

    def __init__(
        self, followers: Followers, has_steps: Callable[[str], Awaitable[bool]], log: FilteringBoundLogger
    ) -> None:
        self._followers = followers
        self._has_steps = has_steps
        self._log = log
        self._runs: dict[str, Entry] = {}
        self._order: list[Key] = []
        self._last = 0
        self._task: asyncio.Task[None] | None = None
        self._filled = asyncio.Event()

    async def close(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def page(
        self, limit: int, before: Key | None = None, pipeline: str | None = None, state: str | None = None
    ) -> tuple[list[Entry], Key | None]:
        """Up to `limit` runs below `before`, newest first, and the key that the next page begins below, if any.

        Raises:
            Unavailable: the log cannot be read.
        """
        await self._ready()
        found: list[Entry] = []
        while True:
            # One more than asked for tells whether anything follows.
            chunk = self._below(before, limit + 1 if state is None else 500, pipeline)
            await self._tell_begun([entry for entry in chunk if not entry.state and not entry.begun])
            found += [entry for entry in chunk if state is None or entry.name == state]
            if len(found) > limit:
                return found[:limit], found[limit - 1].key
            if state is None or not chunk:
                return found, None
            before = chunk[-1].key

    async def _ready(self, timeout: float = 30.0) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._follow())
        try:
            async with asyncio.timeout(timeout):
                await self._filled.wait()
        except TimeoutError as error:
            raise Unavailable(f"the list of runs was not read within {timeout:g} s") from error

    def _below(self, before: Key | None, count: int, pipeline: str | None) -> list[Entry]:
        at = bisect.bisect_left(self._order, before) if before else len(self._order)
        found: list[Entry] = []
        while at > 0 and len(found) < count:
            at -= 1
            entry = self._runs[self._order[at][1]]
            if pipeline is None or entry.pipeline == pipeline:
                found.append(entry)
        return found

    async def _tell_begun(self, entries: list[Entry]) -> None:
        for start in range(0, len(entries), _AT_ONCE):
            part = entries[start : start + _AT_ONCE]
            for entry, begun in zip(
                part, await asyncio.gather(*(self._has_steps(entry.run_id) for entry in part)), strict=True
            ):
                entry.begun = begun

    async def _follow(self) -> None:
        while True:
            try:
                async with self._followers.follow(subjects.RUNS, FILTERS, self._last) as follower:
                    while True:
                        if not follower.pending:
                            self._filled.set()
                        for item in await follower.take(60.0):
                            self._add(item)
            except PenstockError as error:
                self._log.warning("the list of runs cannot be read, trying again", error=str(error))
            await asyncio.sleep(_RETRY)

    def _add(self, item: Item) -> None:
        self._last = item.seq
        fact = events.decode(item.subject, item.data)
        match fact:
            case RunRequested() if fact.run_id not in self._runs:
                entry = Entry(
                    run_id=fact.run_id,
                    project=fact.project,
                    pipeline=fact.pipeline,
                    version=fact.version,
                    requested_at=fact.requested_at or item.at,
                    labels=fact.labels,
                    trigger=fact.trigger,
                )
                self._runs[fact.run_id] = entry
                bisect.insort(self._order, entry.key)
            case RunFinished() if fact.run_id in self._runs:
                entry = self._runs[fact.run_id]
                entry.state, entry.finished_at, entry.error = fact.outcome.value, item.at, fact.error
            case _:
                return


def cursor(key: Key) -> str:
    """A page's end as text for a URL."""
    return base64.urlsafe_b64encode(f"{key[0]!r} {key[1]}".encode()).decode().rstrip("=")


def parse_cursor(text: str) -> Key:
    """Read a cursor.

    Raises:
        InvalidCursor: it is none that a page gave.
    """
    try:
        at, run_id = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode().split(" ")
        return float(at), run_id
    except ValueError as error:
        raise InvalidCursor("the cursor is none that a page gave: leave it out to begin with the newest run") from error
