"""Follows the decisions on requests to endpoints and the ends of their runs.

It wakes the requests that wait for them, and counts the unfinished requests of each endpoint: those of all gateways,
because every gateway follows the same streams. Nothing is followed before the first request to an endpoint.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import AsyncGenerator
from dataclasses import replace

from structlog.typing import FilteringBoundLogger

from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.follower import Followers, StreamMessage
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_contracts import deployment_codec, subjects
from penstock_core.deployments.decisions import EventDecided, Outcome
from penstock_core.errors import PenstockError, UnavailableError
from penstock_core.queries import search
from penstock_core.queries.search import RunQuery
from penstock_gateway.runs.run_search import RunSearch

_READY = 10.0
_RETRY = 1.0
_CHECK_PAUSE = 1.0
"""Seconds between two checks of the unfinished requests of an endpoint against the log."""
_UNDECIDED = 300.0
"""Seconds after which a request without a decision does not count any more: a paused deployment makes none."""
Key = tuple[str, str]
"""Project and name of a deployment."""

_STARTING = (Outcome.STARTED, Outcome.SCHEDULED)


class CallTracker:
    """See the module."""

    def __init__(
        self, bus: Bus, followers: Followers, log: NatsRunLog, runs: RunSearch, logger: FilteringBoundLogger
    ) -> None:
        self._bus = bus
        self._followers = followers
        self._log = log
        self._runs = runs
        self._logger = logger
        self._tasks: list[asyncio.Task[None]] = []
        self._following = {subjects.DECISIONS: asyncio.Event(), subjects.RUNS: asyncio.Event()}
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._counted: dict[Key, asyncio.Task[None]] = {}
        self._triggers: dict[Key, str] = {}
        self._undecided: defaultdict[Key, dict[str, float]] = defaultdict(dict)
        self._unfinished: defaultdict[Key, set[str]] = defaultdict(set)
        self._deployments: dict[str, Key] = {}
        self._checked: dict[Key, float] = {}

    async def start(self) -> None:
        """Do nothing: the streams are followed from the first request on."""

    async def close(self) -> None:
        """Stop to follow."""
        for task in [*self._tasks, *self._counted.values()]:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._counted.values(), return_exceptions=True)

    async def full(self, deployment: Key, trigger: str, limit: int) -> bool:
        """Return whether an endpoint, the trigger of a deployment, has `limit` unfinished requests.

        Raises:
            UnavailableError: the streams or the read model do not answer.
        """
        await self._ready()
        self._triggers[deployment] = trigger
        task = self._counted.get(deployment)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._counted[deployment] = asyncio.create_task(self._fill(deployment))
        await asyncio.shield(task)
        if self._count(deployment) >= limit and time.monotonic() - self._checked.get(deployment, 0.0) > _CHECK_PAUSE:
            self._checked[deployment] = time.monotonic()
            await self._check(deployment)
        return self._count(deployment) >= limit

    @contextlib.asynccontextmanager
    async def watch(self, subject: str) -> AsyncGenerator[asyncio.Event]:
        """Yield an event that is set when a message arrives on a subject of the followed streams.

        Raises:
            UnavailableError: the streams do not answer.
        """
        await self._ready()
        found = asyncio.Event()
        self._waiting[subject].add(found)
        try:
            yield found
        finally:
            self._waiting[subject].discard(found)
            if not self._waiting[subject]:
                del self._waiting[subject]

    def waits(self, deployment: Key, digest: str) -> bool:
        """Return whether a request was accepted, and has no decision yet."""
        return digest in self._undecided[deployment]

    def add(self, deployment: Key, digest: str) -> None:
        """Count a request until its decision arrives."""
        self._undecided[deployment][digest] = time.monotonic()

    def drop(self, deployment: Key, digest: str) -> None:
        """Do not count a request: it was not stored, or is a repetition."""
        self._undecided[deployment].pop(digest, None)

    # ---------------------------------------------------------------------------------------------------------- streams

    async def _ready(self) -> None:
        if not self._tasks:
            filters = {subjects.DECISIONS: "decisions.>", subjects.RUNS: subjects.RUNS_FINISHED}
            self._tasks = [asyncio.create_task(self._follow(stream, one)) for stream, one in filters.items()]
        try:
            async with asyncio.timeout(_READY):
                for following in self._following.values():
                    await following.wait()
        except TimeoutError as error:
            raise UnavailableError(
                f"NATS did not deliver the ends of runs within {_READY:g} s: `penstock doctor` shows its state"
            ) from error

    async def _follow(self, stream: str, pattern: str) -> None:
        last: int | None = None
        take = self._decided if stream == subjects.DECISIONS else self._finished
        while True:
            try:
                if last is None:
                    last = int((await self._bus.api(f"STREAM.INFO.{stream}"))["state"]["last_seq"])
                async with self._followers.follow(stream, [pattern], last) as follower:
                    self._following[stream].set()
                    while True:
                        for message in await follower.take(60.0):
                            last = message.seq
                            take(message)
                            for waiting in self._waiting.get(message.subject, ()):
                                waiting.set()
            except PenstockError as error:
                self._logger.warning("cannot follow the requests to endpoints; retrying", error=str(error))
            except Exception:  # a bug must not leave all requests without answers
                self._logger.exception("cannot follow the requests to endpoints; retrying")
            await asyncio.sleep(_RETRY)

    def _decided(self, message: StreamMessage) -> None:
        words = message.subject.split(".")
        if len(words) != 5:
            return
        _, project, name, digest, trigger = words
        deployment = project, name
        if self._triggers.get(deployment) != trigger:
            return
        self.drop(deployment, digest)
        decision = deployment_codec.read(message.subject, EventDecided.ce_type, message.data)
        if isinstance(decision, EventDecided) and decision.outcome in _STARTING:
            self._add(deployment, decision.run_id)

    def _finished(self, message: StreamMessage) -> None:
        run_id = message.subject.split(".")[2]
        deployment = self._deployments.pop(run_id, None)
        if deployment is not None:
            self._unfinished[deployment].discard(run_id)

    # ------------------------------------------------------------------------------------------------------------ count

    async def _fill(self, deployment: Key) -> None:
        """Count the runs that were unfinished when this gateway began to follow the streams."""
        for state in ("queued", "running"):
            query = RunQuery(
                project=deployment[0],
                deployment=deployment[1],
                trigger="endpoint",
                state=state,
                sort=search.sort(search.NEWEST),
                limit=search.LIMIT,
            )
            while True:
                page = await self._runs.page(query)
                for run in page.runs:
                    self._add(deployment, run.run_id)
                if page.next is None:
                    break
                query = replace(query, after=search.parse_cursor(page.next, query.sort))
        await self._check(deployment)

    async def _check(self, deployment: Key) -> None:
        """Drop runs whose end was delivered before they were added, and requests that have no decision."""
        ends = {subjects.run(run_id, "finished"): run_id for run_id in self._unfinished[deployment]}
        for subject in await self._log.last([*ends]):
            self._deployments.pop(ends[subject], None)
            self._unfinished[deployment].discard(ends[subject])

        self._undecided[deployment] = {
            digest: since
            for digest, since in self._undecided[deployment].items()
            if time.monotonic() - since < _UNDECIDED
        }

    def _count(self, deployment: Key) -> int:
        return len(self._unfinished[deployment]) + len(self._undecided[deployment])

    def _add(self, deployment: Key, run_id: str) -> None:
        self._unfinished[deployment].add(run_id)
        self._deployments[run_id] = deployment
