"""Open questions of all runs in memory: read from the log on first use, then followed.

A suspension fact is a question, which is open until its attempt or its run finishes. Ends are looked up when the list
is requested, so the first list reads the questions only, not the ends of all attempts and runs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from structlog.typing import FilteringBoundLogger

from penstock_adapters.nats.follower import Followers, StreamMessage
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_contracts import fact_codec, subjects
from penstock_contracts.waits import Question, QuestionList
from penstock_core.errors import PenstockError, UnavailableError
from penstock_core.facts import RunRequested, StepSuspended
from penstock_core.pipeline.ir import Kind
from penstock_core.run.suspension import choices
from penstock_gateway.runs import wait_views

FILTERS = ("runs.*.*.step.*.*.suspended",)
_RETRY = 1.0
_READY = 30.0

PAGE = 500
"""Questions of a list, unless a request names another limit."""

_Attempt = tuple[str, str, int]


class _Entry(NamedTuple):
    seq: int
    at: float
    fact: StepSuspended


class OpenQuestions:
    """Lists unanswered questions."""

    def __init__(self, followers: Followers, log: NatsRunLog, logger: FilteringBoundLogger) -> None:
        self._followers = followers
        self._log = log
        self._logger = logger
        self._questions: dict[str, dict[_Attempt, _Entry]] = {}
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

    async def list(
        self, project: str, run_id: str | None = None, pipeline: str | None = None, limit: int = PAGE, after: int = 0
    ) -> QuestionList:
        """Return open questions of all runs of a project, or of one; oldest first.

        Args:
            project: the project.
            run_id: only of this run.
            pipeline: only of this pipeline.
            limit: most questions.
            after: cursor of an earlier list.

        Raises:
            UnavailableError: the log cannot be read.
        """
        await self._ready()
        runs = [run_id] if run_id is not None else list(self._questions)
        known = (entry for run in runs for entry in self._questions.get(run, {}).values())
        candidates = sorted((entry for entry in known if entry.seq > after), key=lambda entry: entry.seq)
        shown: list[Question] = []
        # In sections: ends are looked up only as far as the list goes.
        for start in range(0, len(candidates), PAGE):
            for entry, name in await self._open(project, candidates[start : start + PAGE]):
                if pipeline in (None, name):
                    if len(shown) == limit:
                        return QuestionList(questions=shown, after=after)
                    shown.append(_question(entry.at, entry.fact, name))
                    after = entry.seq
        return QuestionList(questions=shown)

    async def _open(self, project: str, candidates: Sequence[_Entry]) -> list[tuple[_Entry, str]]:
        """Return those of a project that are open, with the names of their pipelines."""
        facts = [entry.fact for entry in candidates]
        ends = {subjects.finished(*_attempt(fact)) for fact in facts}
        ends |= {subjects.run(fact.run_id, "finished") for fact in facts}
        ended = await self._log.last(sorted(ends))
        found: list[_Entry] = []
        for entry in candidates:
            fact = entry.fact
            if {subjects.finished(*_attempt(fact)), subjects.run(fact.run_id, "finished")} & ended.keys():
                self._forget(fact)
            else:
                found.append(entry)
        names = await self._pipelines(project, {entry.fact.run_id for entry in found})
        return [(entry, names[entry.fact.run_id]) for entry in found if entry.fact.run_id in names]

    async def _pipelines(self, project: str, runs: Iterable[str]) -> dict[str, str]:
        records = await self._log.last([subjects.run(run_id, "requested") for run_id in sorted(runs)])
        facts = [record.fact for record in records.values()]
        requests = [fact for fact in facts if isinstance(fact, RunRequested) and fact.project == project]
        return {fact.run_id: fact.pipeline for fact in requests}

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
                self._questions.setdefault(fact.run_id, {})[_attempt(fact)] = _Entry(item.seq, item.at, fact)
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
