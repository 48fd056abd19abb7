"""The codec of facts: CloudEvents attributes as headers, a JSON body validated by pydantic.

The core's dataclasses are the only definition of the fields; pydantic validates by them. Consumers ignore unknown
fields, so newer writers may add some.

`decode` never raises, whatever the bytes: it returns the fact, or an `UnreadableFact` with the reason. An unreadable
message takes its append-once subject all the same, so `placeholder_fact` returns the fact as which every reader counts
it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson
import pydantic

from penstock_contracts import subjects
from penstock_core import trace_context, tracing
from penstock_core.errors import PenstockError
from penstock_core.facts import (
    FACTS,
    ArtifactCommitted,
    AttemptFinished,
    AttemptQueued,
    AttemptRequested,
    AttemptStarted,
    AttemptStopped,
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

_T = TypeVar("_T")

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
    "attempt.stopped": AttemptStopped,
}


@dataclass(frozen=True, slots=True)
class UnreadableFact:
    """An unreadable message: its subject, and why it cannot be read."""

    subject: str
    why: str


RESTORED = "Penstock-Restored"
"""Header of facts that were appended again after the log had lost them: services may have handled them before."""


def subject(fact: Fact) -> str:
    """Return the subject of a fact."""
    return subjects.run(fact.run_id, fact.tail)


def headers(fact: Fact, source: str) -> dict[str, str]:
    """Return the CloudEvents 1.0 attributes in the NATS binding. The id is that of the subject: one fact, one id.

    Requests of runs and attempts have the header `traceparent`, as messages of other systems do.

    The ids of facts that replace each other on one subject include the time.
    """
    several = f".{fact.at:.6f}" if isinstance(fact, ArtifactCommitted) else ""
    attributes = cloud_event(f"{fact.run_id}.{fact.tail}{several}", fact.ce_type, source, fact.run_id)
    if isinstance(fact, RunRequested):
        attributes["traceparent"] = tracing.of_run(fact).traceparent()
    elif isinstance(fact, AttemptRequested):
        span = trace_context.of_attempt(fact.run_id, fact.key, fact.attempt, fact.trace)
        attributes["traceparent"] = span.traceparent()
    return attributes


def headers_at(parsed: subjects.RunSubject, tail: str, source: str) -> dict[str, str]:
    """Return the attributes of a fact that is encoded already. Not for artifacts of a running attempt."""
    return cloud_event(f"{parsed.run_id}.{tail}", _BY_KIND[parsed.kind].ce_type, source, parsed.run_id)


def encode(fact: Fact) -> bytes:
    """Encode a fact as JSON."""
    return to_json(ADAPTERS[type(fact)], fact)


def decode(at: str, body: bytes) -> Fact | UnreadableFact:
    """Decode the message with subject `at`."""
    parsed = subjects.parse(at)
    if parsed is None:
        return UnreadableFact(at, "the subject is not that of a fact")
    return from_json(ADAPTERS[_BY_KIND[parsed.kind]], at, body, subject)


def read(at: str, body: bytes) -> Fact | None:
    """Return the fact as which a message counts, readable or not; None if it counts as none."""
    fact = decode(at, body)
    return placeholder_fact(fact) if isinstance(fact, UnreadableFact) else fact


def placeholder_fact(unreadable: UnreadableFact) -> Fact | None:
    """Return the fact as which an unreadable message with an append-once subject counts; None if it counts as none.

    An unreadable end of an attempt counts as `lost`, so that another attempt follows instead of waiting forever. An
    unreadable attempt request counts as a request, because its subject is taken: the executor that receives it reports
    the attempt lost. An unreadable suspension times out at once. An unreadable run request counts as nothing: there is
    no run.
    """
    parsed = subjects.parse(unreadable.subject)
    if parsed is None:
        return None
    try:
        fact = _placeholder(parsed, unreadable)
    except PenstockError:
        return None
    # Another spelling of the subject, such as attempt `01`, is another subject.
    return fact if fact is not None and subject(fact) == unreadable.subject else None


def _placeholder(parsed: subjects.RunSubject, unreadable: UnreadableFact) -> Fact | None:
    run_id, key, attempt = parsed.run_id, parsed.key or "", parsed.attempt or 0
    simple = _simple_placeholder(parsed, unreadable)
    if simple is not None:
        return simple
    match parsed.kind:
        case "attempt.finished":
            why = f"the end of the attempt is unreadable: {unreadable.why}"
            error = ErrorInfo(type="CorruptEvent", message=why)
            return AttemptFinished(run_id=run_id, key=key, attempt=attempt, outcome=Outcome.LOST, error=error)
        case "attempt.requested":
            return AttemptRequested(
                run_id=run_id,
                key=key,
                attempt=attempt,
                pool=parsed.last,
                project="unreadable",
                pipeline="unreadable",
                version=0,
                entrypoint="",
            )
        case "step.skipped":
            return StepSkipped(run_id=run_id, key=key, reason="an unreadable fact says that it is skipped")
        case "step.expanded":
            why = f"its number of items is unreadable: {unreadable.why}"
            return StepExpanded(run_id=run_id, key=key, error=ErrorInfo(type="CorruptEvent", message=why))
        case "attempt.suspended":
            return StepSuspended(run_id=run_id, key=key, attempt=attempt, kind=Kind.EVENT, until=0.0)
        case "run.finished":
            return RunFinished(run_id=run_id, outcome=Outcome.FAILED, error="the end of the run is unreadable")
        case _:
            return None


def _simple_placeholder(parsed: subjects.RunSubject, unreadable: UnreadableFact) -> Fact | None:
    """The facts that their subjects determine completely."""
    run_id, key, attempt = parsed.run_id, parsed.key or "", parsed.attempt or 0
    match parsed.kind:
        case "run.admitted":
            return RunAdmitted(run_id=run_id)
        case "run.clock":
            return ClockReached(run_id=run_id, at=int(parsed.last) / 1000)
        case "run.cancel":
            return CancelRequested(run_id=run_id, reason="an unreadable cancel request")
        case "step.cancel":
            return StepCancelRequested(run_id=run_id, key=key, reason="an unreadable cancel request")
        case "attempt.queued":
            return AttemptQueued(run_id=run_id, key=key, attempt=attempt)
        case "attempt.granted":
            return SlotGranted(run_id=run_id, key=key, attempt=attempt)
        case "attempt.started":
            return AttemptStarted(run_id=run_id, key=key, attempt=attempt, executor="")
        case "attempt.stopped":
            return AttemptStopped(run_id=run_id, key=key, attempt=attempt)
        case _:
            return None


# ----------------------------------------------------------------------------------------------- of all codecs of facts


def cloud_event(ident: str, ce_type: str, source: str, about: str) -> dict[str, str]:
    """Return the CloudEvents 1.0 attributes in the NATS binding."""
    return {
        "ce-specversion": "1.0",
        "ce-id": ident,
        "ce-type": ce_type,
        "ce-source": source,
        "ce-subject": about,
        "content-type": "application/json",
    }


def to_json(adapter: pydantic.TypeAdapter[Any], fact: object) -> bytes:
    """Encode a fact as JSON."""
    try:
        return orjson.dumps(fact, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:
        # An integer beyond 64 bits: `from_json` accepts it, so it must be encodable.
        return adapter.dump_json(fact)


def from_json(
    adapter: pydantic.TypeAdapter[_T], at: str, body: bytes, subject: Callable[[_T], str]
) -> _T | UnreadableFact:
    """Decode the body of the message with subject `at`; `subject` returns that of a fact."""
    if len(body) > MAX_BODY:
        return UnreadableFact(at, f"the body has {len(body)} bytes; the limit is {MAX_BODY}")
    try:
        fact = adapter.validate_json(body)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return UnreadableFact(at, f"{'.'.join(str(part) for part in first['loc']) or 'body'}: {first['msg']}")
    except (PenstockError, ValueError, RecursionError) as error:
        return UnreadableFact(at, str(error) or type(error).__name__)
    return fact if subject(fact) == at else UnreadableFact(at, f"the body is that of subject {subject(fact)}")
