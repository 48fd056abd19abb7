"""Open questions of all runs, kept in memory: read from the log on first use, and kept up to date after.

The log's facts of suspension tell what was asked; a question is open until its attempt, or its run, is over. Which are
over is looked up when somebody asks for the list, so that the gateway does not have to read every end of every attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

from structlog.typing import FilteringBoundLogger

from penstock_adapters.nats.follower import Followers, StreamMessage
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_contracts import fact_codec, subjects
from penstock_contracts.waits import Question
from penstock_core.errors import PenstockError
from penstock_core.facts import RunFinished, RunRequested, StepSuspended
from penstock_core.pipeline.ir import Kind
from penstock_core.ports import UnavailableError
from penstock_core.run.suspension import choices
from penstock_gateway.waits import wait_views

FILTERS = ("runs.*.*.step.*.*.suspended", "runs.*.*.finished")
_RETRY = 1.0
_READY = 30.0

_Place = tuple[str, str, int]


class OpenQuestions:
    """The questions that nobody has answered."""

    def __init__(self, followers: Followers, log: NatsRunLog, warn: FilteringBoundLogger) -> None:
        self._followers = followers
        self._log = log
        self._warn = warn
        self._asked: dict[str, dict[_Place, tuple[float, StepSuspended]]] = {}
        self._last = 0
        self._task: asyncio.Task[None] | None = None
        self._filled = asyncio.Event()

    async def close(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def list(self, run_id: str | None = None, pipeline: str | None = None) -> list[Question]:
        """Open questions of all runs, or of one; the oldest first.

        Raises:
            Unavailable: the log cannot be read.
        """
        await self._ready()
        runs = [run_id] if run_id is not None else list(self._asked)
        asked = [found for run in runs for found in self._asked.get(run, {}).values()]
        over = await self._log.last([subjects.finished(*_place(fact)) for _, fact in asked])
        for _, fact in asked:
            if subjects.finished(*_place(fact)) in over:
                self._forget(fact)
        found = [(at, fact) for at, fact in asked if subjects.finished(*_place(fact)) not in over]
        names = await self._pipelines({fact.run_id for _, fact in found})
        shown = [_question(at, fact, names[fact.run_id]) for at, fact in found if fact.run_id in names]
        return sorted((one for one in shown if pipeline in (None, one.pipeline)), key=lambda one: one.since)

    async def _pipelines(self, runs: Iterable[str]) -> dict[str, str]:
        records = await self._log.last([subjects.run(run_id, "requested") for run_id in sorted(runs)])
        facts = [record.fact for record in records.values()]
        return {fact.run_id: fact.pipeline for fact in facts if isinstance(fact, RunRequested)}

    async def _ready(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._follow())
        try:
            async with asyncio.timeout(_READY):
                await self._filled.wait()
        except TimeoutError as error:
            raise UnavailableError(f"the open questions were not read within {_READY:g} s") from error

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
                self._warn.warning("the open questions cannot be read, trying again", error=str(error))
            await asyncio.sleep(_RETRY)

    def _add(self, item: StreamMessage) -> None:
        self._last = item.seq
        match fact_codec.decode(item.subject, item.data):
            case StepSuspended(kind=Kind.ASK) as fact:
                self._asked.setdefault(fact.run_id, {})[_place(fact)] = (item.at, fact)
            case RunFinished() as fact:
                self._asked.pop(fact.run_id, None)
            case _:
                return

    def _forget(self, fact: StepSuspended) -> None:
        questions = self._asked.get(fact.run_id, {})
        questions.pop(_place(fact), None)
        if not questions:
            self._asked.pop(fact.run_id, None)


def _place(fact: StepSuspended) -> _Place:
    return fact.run_id, fact.key, fact.attempt


def _question(at: float, fact: StepSuspended, pipeline: str) -> Question:
    return Question(
        run_id=fact.run_id,
        pipeline=pipeline,
        step=fact.key,
        attempt=fact.attempt,
        question=wait_views.question(fact),
        choices=[str(choice) for choice in choices(fact)],
        default=wait_views.text(fact, "default"),
        since=at,
        until=fact.until,
    )
