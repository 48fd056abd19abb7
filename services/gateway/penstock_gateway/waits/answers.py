"""Answers to the questions of steps.

In: the facts that suspended the steps, and answers. Out: the ends of those attempts. The first answer counts: the end
of an attempt is append-once, whether an answer, a cancel or a timeout comes first.
"""

from __future__ import annotations

import time
from typing import Any

from penstock_adapters.nats.archived_log import ArchivedLog
from penstock_contracts import subjects
from penstock_contracts.waits import AnswerAccepted, AnswerBody
from penstock_core.facts import AttemptFinished, Outcome, StepSuspended
from penstock_core.pipeline.ir import Kind
from penstock_core.pipeline.values import Inline
from penstock_core.run.machine import Status, StepState
from penstock_core.run.suspension import choices, plain
from penstock_gateway.errors import ConflictError, UnprocessableError
from penstock_gateway.runs.run_reader import RunReader
from penstock_gateway.runs.steps import find_step

BY_TIME = "time-out"
"""`answered_by` of a question whose time ended (see `penstock_core.run.suspension.woken`)."""


class Answers:
    """Answers questions, and reads their answers."""

    def __init__(self, log: ArchivedLog, reader: RunReader) -> None:
        self._log = log
        self._reader = reader

    async def answer(
        self, run_id: str, key: str, body: AnswerBody, by: str, *, attempt: int | None = None, signed_as: str = ""
    ) -> AnswerAccepted:
        """Answer the question of a step.

        Args:
            run_id: the run.
            key: of the step.
            body: the answer.
            by: the principal that answers.
            attempt: answer only if the question belongs to this attempt.
            signed_as: the name that the user of a link typed.

        Raises:
            NotFoundError: the run or the step does not exist.
            ConflictError: the step has no open question, or was answered otherwise.
            UnprocessableError: the choice does not exist.
        """
        step = (await find_step(self._reader, run_id, key)).step
        fact = question_of(step, key, attempt)
        choice = _chosen(fact, body.choice)
        given = {"answered_by": by, "comment": body.comment.strip(), "signed_as": signed_as}
        end = AttemptFinished(
            run_id=run_id,
            key=key,
            attempt=fact.attempt,
            outcome=Outcome.SUCCEEDED,
            outputs={"result": Inline(choice)},
            params={name: text for name, text in given.items() if text},
            started_at=step.since if step is not None else 0.0,
            finished_at=time.time(),
        )
        waits = step is not None and step.status is Status.SUSPENDED
        if waits and (await self._log.append([end]))[0]:
            return _accepted(end, created=True)
        existing = await self.end_of(fact)
        if existing is None:
            raise ConflictError(f"Step {key!r} does not wait for an answer", "it finished before")
        known = answer_of(existing)
        if known.choice == body.choice:
            return known
        raise _answered(known)

    async def end_of(self, fact: StepSuspended) -> AttemptFinished | None:
        """Return the end of the attempt that asked; None while it waits."""
        subject = subjects.finished(fact.run_id, fact.key, fact.attempt)
        record = (await self._log.last([subject])).get(subject)
        return record.fact if record is not None and isinstance(record.fact, AttemptFinished) else None


def question_of(step: StepState | None, key: str, attempt: int | None = None) -> StepSuspended:
    """Return the open or last question of a step.

    Raises:
        ConflictError: it has none, or another attempt asked it.
    """
    fact = step.suspended if step is not None else None
    if step is None or fact is None or fact.kind is not Kind.ASK or fact.attempt != step.attempt:
        state = f"it is {step.status.value}" if step is not None else "it has not started"
        raise ConflictError(f"Step {key!r} does not wait for an answer", state)
    if attempt is not None and attempt != fact.attempt:
        raise ConflictError(f"Step {key!r} was retried and asks again", "the answer is for an earlier attempt")
    return fact


def _chosen(fact: StepSuspended, text: str) -> Any:
    """Return the choice with this text.

    Raises:
        UnprocessableError: there is none.
    """
    known = choices(fact)
    for choice in known:
        if str(choice) == text:
            return choice
    if not known:
        return text
    shown = ", ".join(repr(str(choice)) for choice in known)
    raise UnprocessableError(
        f"{text[:100]!r} is not a choice of step {fact.key!r}",
        f"its choices: {shown}"[:4000],
        errors=[("choice", "is not one of the choices")],
    )


def _accepted(end: AttemptFinished, *, created: bool) -> AnswerAccepted:
    return AnswerAccepted(
        run_id=end.run_id,
        step=end.key,
        attempt=end.attempt,
        choice=str(plain(end.outputs.get("result"))),
        answered_by=str(end.params.get("answered_by", "")),
        comment=str(end.params.get("comment", "")),
        signed_as=str(end.params.get("signed_as", "")),
        answered_at=end.finished_at,
        created=created,
    )


def answer_of(end: AttemptFinished) -> AnswerAccepted:
    """Return the answer that finished an attempt.

    Raises:
        ConflictError: it finished otherwise.
    """
    if end.outcome is not Outcome.SUCCEEDED:
        why = end.error.message if end.error is not None else end.outcome.value
        raise ConflictError(f"Step {end.key!r} no longer waits for an answer", why)
    return _accepted(end, created=False)


def author(answer: AnswerAccepted) -> str:
    """Return who answered, for people."""
    return f"{answer.answered_by}, signed {answer.signed_as!r}" if answer.signed_as else answer.answered_by


def _answered(known: AnswerAccepted) -> ConflictError:
    who = "by its default, at the timeout" if known.answered_by == BY_TIME else f"by {author(known)}"
    comment = f" ({known.comment})" if known.comment else ""
    return ConflictError(f"Step {known.step!r} was already answered {known.choice!r}", f"{who}{comment}")
