"""Appends the facts of runs that have finished, in atomic batches: encoded facts, of many runs at once.

The writer has made them elsewhere, so they are not decoded here: a fact that is not valid harms its own run only, since
every reader counts an unreadable fact as its placeholder.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from penstock_adapters.nats.bus import Bus, BusError, check
from penstock_contracts import fact_codec, subjects

BATCH_LIMIT = 900
"""Facts in one batch; the server accepts 1,000."""

_KINDS = ("run.requested", "run.finished", "step.expanded", "step.skipped", "attempt.requested", "attempt.finished")
_WRONG_LAST = (10071, 10164)
_BATCHES = itertools.count(1)
_PREFIX = secrets.token_hex(6)


@dataclass(frozen=True, slots=True)
class EncodedFact:
    """A fact: its subject, its body and its headers."""

    subject: str
    body: bytes
    headers: dict[str, str]


def encoded(run_id: str, tail: str, body: bytes, source: str) -> EncodedFact | None:
    """Return a fact of a run for its log; None if a run that is recorded has no such fact.

    Args:
        run_id: of the run.
        tail: end of the fact's subject.
        body: the fact as JSON.
        source: names the writer in the CloudEvents envelope.
    """
    at = subjects.run(run_id, tail)
    parsed = subjects.parse(at)
    if parsed is None or parsed.kind not in _KINDS or len(body) > fact_codec.MAX_BODY or not tail.isprintable():
        return None
    headers = fact_codec.headers_at(parsed, tail, source)
    return EncodedFact(at, body, {**headers, "Nats-Expected-Last-Subject-Sequence": "0"})


async def append(bus: Bus, facts: Sequence[EncodedFact]) -> None:
    """Append facts; those that are in the log already are skipped.

    Raises:
        UnavailableError: the server did not confirm; any part may have been written. Appending again is safe.
        BusError: a final refusal.
    """
    for start in range(0, len(facts), BATCH_LIMIT):
        part = facts[start : start + BATCH_LIMIT]
        try:
            await _batch(bus, part)
        except BusError as error:
            if error.code not in _WRONG_LAST:
                raise
            for fact in part:  # written before, without a confirmation
                await _single(bus, fact)


async def _batch(bus: Bus, facts: Sequence[EncodedFact]) -> None:
    batch = f"{_PREFIX}-{next(_BATCHES)}"
    *first, last = facts
    numbered = {"Nats-Batch-Id": batch} if first else {}
    for n, fact in enumerate(first, 1):
        await bus.send(fact.subject, fact.body, {**fact.headers, **numbered, "Nats-Batch-Sequence": str(n)})
    if first:
        numbered |= {"Nats-Batch-Sequence": str(len(facts)), "Nats-Batch-Commit": "1"}
    check(await bus.store(last.subject, last.body, {**last.headers, **numbered}))


async def _single(bus: Bus, fact: EncodedFact) -> None:
    try:
        await bus.publish(fact.subject, fact.body, fact.headers)
    except BusError as error:
        if error.code not in _WRONG_LAST:
            raise
