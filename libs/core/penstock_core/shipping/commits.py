"""Announces the artifacts and checkpoints that attempts store while they run.

In: `ArtifactCommitted` facts about objects in the local store. Out: the same facts in the log, once the objects are
in the store that all machines share.

Promises: the latest fact of each name is in the log before the end of the attempt is, unless the store is unavailable
for long; a name that is stored many times a second costs the log two facts a second; no failure here fails an attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from penstock_core.errors import PenstockError
from penstock_core.facts import ArtifactCommitted, Fact
from penstock_core.pipeline.values import Value
from penstock_core.shipping.messages import AttemptKey

INTERVAL = 0.5
"""Seconds between two facts of one name; of those in between, only the last is written."""

DRAIN_TIMEOUT = 60.0
"""Seconds that the end of an attempt waits for the facts about what it stored."""


@dataclass(slots=True)
class _Name:
    """One name of one attempt: the fact that is to be written, and the task that writes it."""

    pending: ArtifactCommitted | None = None
    task: asyncio.Task[None] | None = None


@dataclass(slots=True)
class _AttemptCommits:
    names: dict[str, _Name] = field(default_factory=dict[str, _Name])
    ending: asyncio.Event = field(default_factory=asyncio.Event)


class CommitPublisher:
    """Publishes objects and writes facts about them.

    Args:
        submit: appends a fact; the future is done when it is in the log.
        publish: puts objects into the shared store; raises `PenstockError` when that is not possible.
        warn: writes to the log of the service.
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
        self._attempts: dict[AttemptKey, _AttemptCommits] = {}

    def commit(self, fact: ArtifactCommitted) -> None:
        """Announce that an attempt has stored something."""
        commits = self._attempts.setdefault((fact.run_id, fact.key, fact.attempt), _AttemptCommits())
        name = commits.names.setdefault(fact.name, _Name())
        name.pending = fact
        if name.task is None:
            name.task = asyncio.create_task(self._publish_pending(commits, name))

    async def drain(self, attempt: AttemptKey) -> None:
        """Return when everything that an attempt has stored is announced, or cannot be."""
        commits = self._attempts.get(attempt)
        if commits is None:
            return
        commits.ending.set()
        tasks = [name.task for name in commits.names.values() if name.task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=DRAIN_TIMEOUT)
            if late:
                self._warn("stored artifacts not announced before the end", attempt="/".join(map(str, attempt)))

    def forget(self, attempt: AttemptKey) -> None:
        """Drop the state of a finished attempt."""
        commits = self._attempts.pop(attempt, None)
        for name in commits.names.values() if commits is not None else ():
            if name.task is not None:
                name.task.cancel()

    @property
    def following(self) -> int:
        """Attempts that stored something and are not forgotten."""
        return len(self._attempts)

    async def _publish_pending(self, commits: _AttemptCommits, name: _Name) -> None:
        while name.pending is not None:
            fact, name.pending = name.pending, None
            try:
                await self._publish([fact.value])
                await self._submit(fact)
            except PenstockError as error:
                attempt = f"{fact.run_id}/{fact.key}/{fact.attempt}"
                self._warn("stored artifact not announced", attempt=attempt, name=fact.effective_name, error=str(error))
            if not commits.ending.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(commits.ending.wait(), INTERVAL)
        name.task = None
