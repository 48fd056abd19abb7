"""Questions that steps ask, and their answers.

In: the facts with which steps were suspended, and answers. Out: the ends of those attempts. The first answer counts:
the end of an attempt is append-once, whether an answer, a cancel or a time-out comes first.
"""

from __future__ import annotations

import time
from typing import Any

from penstock_contracts import subjects
from penstock_contracts.waits import AnswerAccepted, AnswerBody
from penstock_core.facts import AttemptFinished, Outcome, StepSuspended
from penstock_core.pipeline.ir import Kind
from penstock_core.pipeline.values import Inline
from penstock_core.run.machine import Status, StepState
from penstock_core.run.suspension import choices, plain
from penstock_gateway.http.problems import ProblemError
from penstock_gateway.service import GatewayService
from penstock_gateway.steps import step_actions

BY_TIME = "time-out"
"""Who answered where the time was over (see `penstock_core.run.suspension.woken`)."""

ANONYMOUS = "somebody"
"""Who answered, where nobody gave a name."""


async def answer(
    service: GatewayService, run_id: str, key: str, body: AnswerBody, *, attempt: int | None = None, link: bool = False
) -> AnswerAccepted:
    """Answer a step's question; with `attempt`, that of this attempt only. `link` tells that it came by a link.

    Raises:
        ProblemError: 404 no such run or step; 409 it asks nothing, or was answered otherwise; 422 no such choice.
    """
    step = (await step_actions.find(service, run_id, key)).step
    fact = asked(step, key, attempt)
    choice = _chosen(fact, body.choice)
    given = {"answered_by": body.by.strip() or ANONYMOUS, "comment": body.comment.strip()}
    end = AttemptFinished(
        run_id=run_id,
        key=key,
        attempt=fact.attempt,
        outcome=Outcome.SUCCEEDED,
        outputs={"result": Inline(choice)},
        params={name: text for name, text in given.items() if text} | ({"answered_through": "link"} if link else {}),
        started_at=step.since if step is not None else 0.0,
        finished_at=time.time(),
    )
    waits = step is not None and step.status is Status.SUSPENDED
    if waits and (await service.runs.append([end]))[0]:
        return _answered(end, created=True)
    known = await ended(service, fact)
    if known is None:
        raise ProblemError(409, f"Step {key!r} does not wait for an answer", "it was ended before it could be answered")
    there = answer_of(known)
    if there.choice == body.choice:
        return there
    raise _over(there)


def asked(step: StepState | None, key: str, attempt: int | None = None) -> StepSuspended:
    """The question that a step asks, or asked last.

    Raises:
        ProblemError: 409 it asks nothing, or asks anew.
    """
    fact = step.suspended if step is not None else None
    if step is None or fact is None or fact.kind is not Kind.ASK or fact.attempt != step.attempt:
        how = f"it is {step.status.value}" if step is not None else "its turn has not come"
        raise ProblemError(409, f"Step {key!r} does not wait for an answer", how)
    if attempt is not None and attempt != fact.attempt:
        raise ProblemError(409, f"Step {key!r} asks anew", "the answer is for an earlier attempt of it")
    return fact


async def ended(service: GatewayService, fact: StepSuspended) -> AttemptFinished | None:
    """How the attempt ended that asked; None while it waits."""
    place = subjects.finished(fact.run_id, fact.key, fact.attempt)
    record = (await service.runs.last([place])).get(place)
    return record.fact if record is not None and isinstance(record.fact, AttemptFinished) else None


def _chosen(fact: StepSuspended, text: str) -> Any:
    """The choice that a text names.

    Raises:
        ProblemError: 422 there is none.
    """
    known = choices(fact)
    for choice in known:
        if str(choice) == text:
            return choice
    if not known:
        return text
    shown = ", ".join(repr(str(choice)) for choice in known)
    raise ProblemError(
        422,
        f"{text[:100]!r} cannot be answered to step {fact.key!r}",
        f"its choices: {shown}"[:4000],
        errors=[("choice", "is none of the choices")],
    )


def _answered(end: AttemptFinished, *, created: bool) -> AnswerAccepted:
    return AnswerAccepted(
        run_id=end.run_id,
        step=end.key,
        attempt=end.attempt,
        choice=str(plain(end.outputs.get("result"))),
        answered_by=str(end.params.get("answered_by", ANONYMOUS)),
        comment=str(end.params.get("comment", "")),
        answered_at=end.finished_at,
        created=created,
    )


def answer_of(end: AttemptFinished) -> AnswerAccepted:
    """The answer with which an attempt ended.

    Raises:
        ProblemError: 409 it ended in another way.
    """
    if end.outcome is not Outcome.SUCCEEDED:
        why = end.error.message if end.error is not None else end.outcome.value
        raise ProblemError(409, f"Step {end.key!r} does not wait for an answer any more", why)
    return _answered(end, created=False)


def _over(known: AnswerAccepted) -> ProblemError:
    who = "its time was over: the default counts" if known.answered_by == BY_TIME else f"by {known.answered_by}"
    comment = f" ({known.comment})" if known.comment else ""
    return ProblemError(409, f"Step {known.step!r} was answered {known.choice!r} already", f"{who}{comment}")
