"""Open questions of all runs in memory: read from the log on first use, then followed.

A suspension fact is a question, which is open until its attempt or its run finishes. Ends are looked up when the list
is requested, so the first list reads the questions only, not the ends of all attempts and runs.
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
from penstock_core.errors import PenstockError, UnavailableError
from penstock_core.facts import RunRequested, StepSuspended
from penstock_core.pipeline.ir import Kind
from penstock_core.run.suspension import choices
from penstock_gateway.runs import wait_views

FILTERS = ("runs.*.*.step.*.*.suspended",)
_RETRY = 1.0
_READY = 30.0

_Attempt = tuple[str, str, int]


class OpenQuestions:
    """Lists unanswered questions."""

    def __init__(self, followers: Followers, log: NatsRunLog, logger: FilteringBoundLogger) -> None:
        self._followers = followers
        self._log = log
        self._logger = logger
        self._questions: dict[str, dict[_Attempt, tuple[float, StepSuspended]]] = {}
        self._last = 0
        self._task: asyncio.Task[None] | None = None
        self._filled = asyncio.Event()

    async def start(self) -> None:
        """Do nothing: the log is read with the first request."""

    async def close(self) -> None:
        """Stop to follow."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def list(self, run_id: str | None = None, pipeline: str | None = None) -> list[Question]:
        """Return open questions of all runs, or of one; oldest first.

        Raises:
            UnavailableError: the log cannot be read.
        """
        await self._ready()
        runs = [run_id] if run_id is not None else list(self._questions)
        candidates = [found for run in runs for found in self._questions.get(run, {}).values()]
        ends = {subjects.finished(*_attempt(fact)) for _, fact in candidates}
        ends |= {subjects.run(fact.run_id, "finished") for _, fact in candidates}
        ended = await self._log.last(sorted(ends))
        found: list[tuple[float, StepSuspended]] = []
        for at, fact in candidates:
            if {subjects.finished(*_attempt(fact)), subjects.run(fact.run_id, "finished")} & ended.keys():
                self._forget(fact)
            else:
                found.append((at, fact))
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
            raise UnavailableError(f"the open questions could not be read within {_READY:g} s") from error

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
                self._logger.warning("cannot read the open questions; retrying", error=str(error))
            await asyncio.sleep(_RETRY)

    def _add(self, item: StreamMessage) -> None:
        self._last = item.seq
        match fact_codec.decode(item.subject, item.data):
            case StepSuspended(kind=Kind.ASK) as fact:
                self._questions.setdefault(fact.run_id, {})[_attempt(fact)] = (item.at, fact)
            case _:
                return

    def _forget(self, fact: StepSuspended) -> None:
        questions = self._questions.get(fact.run_id, {})
        questions.pop(_attempt(fact), None)
        if not questions:
            self._questions.pop(fact.run_id, None)


def _attempt(fact: StepSuspended) -> _Attempt:
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
