"""What attempts store while they run: announced in the log at once, and given to the attempt that follows.

In: `ArtifactCommitted` facts about objects in the store of this machine. Out: the same facts in the log, once the
objects are where others can get them.

Promises: the latest of each name is in the log before the attempt's end is, unless the store is away for long; what an
attempt stores more often than the log needs to know costs the log nothing; nothing here fails an attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from penstock_contracts import subjects
from penstock_core import committed_artifacts
from penstock_core.errors import PenstockError
from penstock_core.facts import ArtifactCommitted, AttemptRequested, Fact
from penstock_core.pipeline.values import Value
from penstock_core.ports import Recorded, UnavailableError
from penstock_executor.platform import Attempt

INTERVAL = 0.5
"""Seconds between two facts of one name: of those that come in between only the last one counts."""

SETTLE = 60.0
"""Seconds that the end of an attempt waits for what it stored before."""


@dataclass(slots=True)
class _Name:
    """One name of one attempt: the fact that is still to be told, and the task that tells it."""

    pending: ArtifactCommitted | None = None
    task: asyncio.Task[None] | None = None


@dataclass(slots=True)
class _AttemptCommits:
    """What one attempt has told."""

    names: dict[str, _Name] = field(default_factory=dict[str, _Name])
    ending: asyncio.Event = field(default_factory=asyncio.Event)


class CommitPublisher:
    """Tells the log what attempts store.

    Args:
        submit: appends a fact; the future is done when it is in the log.
        publish: has objects in the store for all; raises `PenstockError` when that is not possible.
        warn: writes to the service's own log.
    """

    def __init__(
        self,
        submit: Callable[[Fact], asyncio.Future[bool]],
        publish: Callable[[Sequence[Value]], Awaitable[None]],
        warn: Callable[..., None],
    ) -> None:
        self._submit = submit
        self._publish = publish
        self._warn = warn
        self._attempts: dict[Attempt, _AttemptCommits] = {}

    def take(self, fact: ArtifactCommitted) -> None:
        """An attempt has stored something."""
        published = self._attempts.setdefault((fact.run_id, fact.key, fact.attempt), _AttemptCommits())
        name = published.names.setdefault(fact.name, _Name())
        name.pending = fact
        if name.task is None:
            name.task = asyncio.create_task(self._publish_pending(published, name))

    async def settle(self, attempt: Attempt) -> None:
        """Return when all that an attempt has stored is told, or cannot be."""
        published = self._attempts.get(attempt)
        if published is None:
            return
        published.ending.set()
        tasks = [name.task for name in published.names.values() if name.task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=SETTLE)
            if late:
                self._warn("what an attempt stored is not told before its end", attempt="/".join(map(str, attempt)))

    def forget(self, attempt: Attempt) -> None:
        """The attempt is over."""
        published = self._attempts.pop(attempt, None)
        for name in published.names.values() if published is not None else ():
            if name.task is not None:
                name.task.cancel()

    @property
    def following(self) -> int:
        """Attempts that stored something and are not forgotten."""
        return len(self._attempts)

    async def _publish_pending(self, published: _AttemptCommits, name: _Name) -> None:
        while name.pending is not None:
            fact, name.pending = name.pending, None
            try:
                await self._publish([fact.value])
                await self._submit(fact)
            except PenstockError as error:
                place = f"{fact.run_id}/{fact.key}/{fact.attempt}"
                self._warn(
                    "what an attempt stored is not told", attempt=place, name=fact.effective_name, error=str(error)
                )
            if not published.ending.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(published.ending.wait(), INTERVAL)
        name.task = None


async def latest(
    request: AttemptRequested,
    last: Callable[[list[str]], Awaitable[dict[str, Recorded]]],
    fetch: Callable[[Sequence[Value]], Awaitable[None]],
    warn: Callable[..., None],
) -> Value | None:
    """The checkpoint that an attempt goes on from, fetched to this machine: the last one that can still be had.

    Args:
        request: the attempt.
        last: reads the last facts on subjects.
        fetch: has objects on this machine; raises `PenstockError` for one that is gone.
        warn: writes to the service's own log.

    Raises:
        Unavailable: the log or the store does not answer.
    """
    if request.attempt == 1:
        return None
    found = await last([subjects.committed(request.run_id, request.key, "*", committed_artifacts.CHECKPOINT)])
    facts = [record.fact for record in found.values() if isinstance(record.fact, ArtifactCommitted)]
    for fact in committed_artifacts.checkpoints(facts, request.attempt):
        try:
            await fetch([fact.value])
        except UnavailableError:
            raise
        except PenstockError as error:
            place = f"{fact.run_id}/{fact.key}/{fact.attempt}"
            warn("a checkpoint is gone", attempt=place, error=str(error))
            continue
        return fact.value
    return None
