"""The codec of facts: CloudEvents attributes as headers, a JSON body validated by pydantic.

The fields of a fact are defined once, as the core's dataclasses; pydantic reads them as they stand, so there is no
second model to keep in step. Consumers ignore fields they do not know: a newer writer may add some.

Promise: `decode` never raises on hostile bytes. It returns the fact, or `UnreadableFact` with the reason. A corrupt
message
still takes its append-once place, so `placeholder_fact` gives the fact that every reader takes it for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
import pydantic

from penstock_contracts import subjects
from penstock_core.errors import PenstockError
from penstock_core.facts import (
    FACTS,
    ArtifactCommitted,
    AttemptFinished,
    AttemptQueued,
    AttemptRequested,
    AttemptStarted,
    CancelRequested,
    ClockReached,
    ErrorInfo,
    Fact,
    Outcome,
    RunAdmitted,
    RunArchived,
    RunDeleted,
    RunFinished,
    RunRequested,
    SlotGranted,
    StepCancelRequested,
    StepExpanded,
    StepReused,
    StepSkipped,
    StepSuspended,
)
from penstock_core.pipeline.ir import Kind

MAX_BODY = 4 * 1024 * 1024

ADAPTERS: dict[type[Fact], pydantic.TypeAdapter[Any]] = {fact: pydantic.TypeAdapter(fact) for fact in FACTS}

_BY_KIND: dict[str, type[Fact]] = {
    "run.requested": RunRequested,
    "run.admitted": RunAdmitted,
    "run.clock": ClockReached,
    "run.cancel": CancelRequested,
    "run.finished": RunFinished,
    "run.archived": RunArchived,
    "run.deleted": RunDeleted,
    "step.expanded": StepExpanded,
    "step.reused": StepReused,
    "step.skipped": StepSkipped,
    "step.cancel": StepCancelRequested,
    "attempt.queued": AttemptQueued,
    "attempt.granted": SlotGranted,
    "attempt.suspended": StepSuspended,
    "attempt.requested": AttemptRequested,
    "attempt.started": AttemptStarted,
    "attempt.artifact": ArtifactCommitted,
    "attempt.finished": AttemptFinished,
}


@dataclass(frozen=True, slots=True)
class UnreadableFact:
    """A message that is no fact: where it lay and why it could not be read."""

    subject: str
    why: str


def subject(fact: Fact) -> str:
    """The subject on which a fact is stored."""
    return subjects.run(fact.run_id, fact.tail)


def headers(fact: Fact, source: str) -> dict[str, str]:
    """CloudEvents 1.0 attributes in the NATS binding. The id is the fact's place: the same fact, the same id.

    Of facts that follow each other at one place it has the time, too.
    """
    several = f".{fact.at:.6f}" if isinstance(fact, ArtifactCommitted) else ""
    return {
        "ce-specversion": "1.0",
        "ce-id": f"{fact.run_id}.{fact.tail}{several}",
        "ce-type": fact.ce_type,
        "ce-source": source,
        "ce-subject": fact.run_id,
        "content-type": "application/json",
    }


def encode(fact: Fact) -> bytes:
    """The body of a fact as JSON."""
    try:
        return orjson.dumps(fact, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:
        # An integer beyond 64 bits: `decode` reads it, so it must be possible to pass it on.
        return ADAPTERS[type(fact)].dump_json(fact)


def decode(at: str, body: bytes) -> Fact | UnreadableFact:
    """Read the fact that lies at subject `at`."""
    place = subjects.parse(at)
    if place is None:
        return UnreadableFact(at, "the subject is not of the form of any fact")
    if len(body) > MAX_BODY:
        return UnreadableFact(at, f"the body has {len(body)} bytes; the limit is {MAX_BODY}")
    try:
        fact: Fact = ADAPTERS[_BY_KIND[place.kind]].validate_json(body)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return UnreadableFact(at, f"{'.'.join(str(p) for p in first['loc']) or 'body'}: {first['msg']}")
    except (PenstockError, ValueError, RecursionError) as error:
        return UnreadableFact(at, str(error) or type(error).__name__)
    if subject(fact) != at:
        return UnreadableFact(at, f"the body says it belongs at {subject(fact)}")
    return fact


def read(at: str, body: bytes) -> Fact | None:
    """The fact that the message at subject `at` counts as, whatever it holds; None when it counts as none."""
    fact = decode(at, body)
    return placeholder_fact(fact) if isinstance(fact, UnreadableFact) else fact


def placeholder_fact(corrupt: UnreadableFact) -> Fact | None:
    """The fact that an unreadable message in an append-once place counts as, or None when it counts as nothing.

    An unreadable end of an attempt counts as `lost`, so that the step is tried again instead of waiting forever. An
    unreadable request counts as a request, because nobody can write there any more: the executor that receives it
    reports its attempt lost. A step that is suspended by an unreadable fact gives up at once. An unreadable request of
    a run counts as nothing: there is no run.
    """
    place = subjects.parse(corrupt.subject)
    if place is None:
        return None
    try:
        fact = _stand_in(place, corrupt)
    except PenstockError:
        return None
    # Another spelling of a place, such as attempt `01`, is not that place.
    return fact if fact is not None and subject(fact) == corrupt.subject else None


def _stand_in(place: subjects.RunSubject, corrupt: UnreadableFact) -> Fact | None:
    run_id, key, attempt = place.run_id, place.key or "", place.attempt or 0
    simple = _simple_stand_in(place, corrupt)
    if simple is not None:
        return simple
    match place.kind:
        case "attempt.finished":
            why = f"the end of the attempt is unreadable: {corrupt.why}"
            error = ErrorInfo(type="CorruptEvent", message=why)
            return AttemptFinished(run_id=run_id, key=key, attempt=attempt, outcome=Outcome.LOST, error=error)
        case "attempt.requested":
            return AttemptRequested(
                run_id=run_id,
                key=key,
                attempt=attempt,
                pool=place.last,
                project="unreadable",
                pipeline="unreadable",
                version=0,
                entrypoint="",
            )
        case "step.skipped":
            return StepSkipped(run_id=run_id, key=key, reason="an unreadable fact says that it is skipped")
        case "step.expanded":
            why = f"its number of items is unreadable: {corrupt.why}"
            return StepExpanded(run_id=run_id, key=key, error=ErrorInfo(type="CorruptEvent", message=why))
        case "attempt.suspended":
            return StepSuspended(run_id=run_id, key=key, attempt=attempt, kind=Kind.EVENT, until=0.0)
        case "run.finished":
            return RunFinished(run_id=run_id, outcome=Outcome.FAILED, error="the end of the run is unreadable")
        case _:
            return None


def _simple_stand_in(place: subjects.RunSubject, corrupt: UnreadableFact) -> Fact | None:
    """Facts whose place says all that matters."""
    run_id, key, attempt = place.run_id, place.key or "", place.attempt or 0
    match place.kind:
        case "run.admitted":
            return RunAdmitted(run_id=run_id)
        case "run.clock":
            return ClockReached(run_id=run_id, at=int(place.last) / 1000)
        case "run.cancel":
            return CancelRequested(run_id=run_id, reason="an unreadable cancel request")
        case "step.cancel":
            return StepCancelRequested(run_id=run_id, key=key, reason="an unreadable cancel request")
        case "attempt.queued":
            return AttemptQueued(run_id=run_id, key=key, attempt=attempt)
        case "attempt.granted":
            return SlotGranted(run_id=run_id, key=key, attempt=attempt)
        case _:
            return None
