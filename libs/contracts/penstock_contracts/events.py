"""The codec of facts: CloudEvents attributes as headers, a JSON body validated by pydantic.

The fields of a fact are defined once, as the core's dataclasses; pydantic reads them as they stand, so there is no
second model to keep in step. Consumers ignore fields they do not know: a newer writer may add some.

Promise: `decode` never raises on hostile bytes. It returns the fact, or `Corrupt` with the reason. A corrupt *end*
of an attempt still takes its append-once place, so `stand_in` gives the fact that every reader takes it for.
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
    AttemptFinished,
    AttemptRequested,
    AttemptStarted,
    CancelRequested,
    ErrorInfo,
    Fact,
    Outcome,
    RunFinished,
    RunRequested,
    StepSkipped,
)

MAX_BODY = 4 * 1024 * 1024

ADAPTERS: dict[type[Fact], pydantic.TypeAdapter[Any]] = {fact: pydantic.TypeAdapter(fact) for fact in FACTS}

_BY_KIND: dict[str, type[Fact]] = {
    "run.requested": RunRequested,
    "run.cancel": CancelRequested,
    "run.finished": RunFinished,
    "step.skipped": StepSkipped,
    "attempt.requested": AttemptRequested,
    "attempt.started": AttemptStarted,
    "attempt.finished": AttemptFinished,
}


@dataclass(frozen=True, slots=True)
class Corrupt:
    """A message that is no fact: where it lay and why it could not be read."""

    subject: str
    why: str


def subject(fact: Fact) -> str:
    """The subject on which a fact is stored."""
    return subjects.run(fact.run_id, fact.tail)


def headers(fact: Fact, source: str) -> dict[str, str]:
    """CloudEvents 1.0 attributes in the NATS binding. The id is the fact's place in its run: the same fact, the same id."""
    return {
        "ce-specversion": "1.0",
        "ce-id": f"{fact.run_id}.{fact.tail}",
        "ce-type": fact.ce_type,
        "ce-source": source,
        "ce-subject": fact.run_id,
        "content-type": "application/json",
    }


def encode(fact: Fact) -> bytes:
    """The body of a fact as JSON."""
    return orjson.dumps(fact, option=orjson.OPT_SERIALIZE_NUMPY)


def decode(at: str, body: bytes) -> Fact | Corrupt:
    """Read the fact that lies at subject `at`."""
    place = subjects.parse(at)
    if place is None:
        return Corrupt(at, "the subject is not of the form of any fact")
    if len(body) > MAX_BODY:
        return Corrupt(at, f"the body has {len(body)} bytes; the limit is {MAX_BODY}")
    try:
        fact: Fact = ADAPTERS[_BY_KIND[place.kind]].validate_json(body)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return Corrupt(at, f"{'.'.join(str(p) for p in first['loc']) or 'body'}: {first['msg']}")
    except (PenstockError, ValueError, RecursionError) as error:
        return Corrupt(at, str(error) or type(error).__name__)
    if subject(fact) != at:
        return Corrupt(at, f"the body says it belongs at {subject(fact)}")
    return fact


def stand_in(corrupt: Corrupt) -> Fact | None:
    """The fact that an unreadable message in an append-once place counts as, or None when it counts as nothing.

    An unreadable end of an attempt counts as `lost`, so that the step is tried again instead of waiting forever.
    """
    place = subjects.parse(corrupt.subject)
    try:
        if place is not None and place.kind == "attempt.finished" and place.key and place.attempt:
            return AttemptFinished(
                run_id=place.run_id,
                key=place.key,
                attempt=place.attempt,
                outcome=Outcome.LOST,
                error=ErrorInfo(type="CorruptEvent", message=f"the end of the attempt is unreadable: {corrupt.why}"),
            )
        if place is not None and place.kind == "run.cancel":
            return CancelRequested(run_id=place.run_id, reason="an unreadable cancel request")
    except PenstockError:
        return None
    return None
