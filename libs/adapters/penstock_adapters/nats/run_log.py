"""The append-once log of runs on the stream `RUNS`.

A fact is published with `Nats-Expected-Last-Subject-Sequence: 0`: the broker stores it if the subject has no message
yet and refuses it otherwise, so the broker alone decides what is "already known". Few facts are sent as single
messages, pipelined; many as atomic batches, which the server syncs once. The choice affects speed only: every fact is
idempotent, and readers never need two of them together.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar

from nats.aio.msg import Msg

from penstock_adapters import metrics
from penstock_adapters.nats.bus import Bus, BusError, check
from penstock_contracts import fact_codec, subjects
from penstock_core.errors import UnavailableError
from penstock_core.facts import ArtifactCommitted, Fact
from penstock_core.ports import Recorded

BATCH_FROM = 10
"""Facts from which an atomic batch is cheaper than single publishes (measured, see docs/performance.md)."""

BATCH_LIMIT = 1000
READ_LIMIT = 500
_TRIES = 20
_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_WRONG_LAST = (10071, 10164)
_HEADERS = 2048
"""Room for headers: the server counts them too, and closes the connection of a client that exceeds its limit."""

_BATCHES = itertools.count(1)
_PREFIX = secrets.token_hex(6)


class FactTooLargeError(BusError):
    """A fact exceeds the limit of readers."""

    user_fault: ClassVar[bool] = True


class NatsRunLog:
    """`ports.RunLog` on JetStream. `source` names the writer in the CloudEvents envelope."""

    def __init__(self, bus: Bus, source: str) -> None:
        self._bus = bus
        self._source = source

    async def append(self, facts: Sequence[Fact]) -> list[bool]:
        """Append facts in order; see the port.

        Raises:
            UnavailableError: the server did not confirm; any part may have been written. Appending again is safe.
            FactTooLargeError: a fact exceeds the limit of the server, or of readers.
            BusError: a final refusal.
        """
        written: list[bool] = []
        for start in range(0, len(facts), BATCH_LIMIT):
            part = facts[start : start + BATCH_LIMIT]
            stored = await (self._singles(part) if len(part) < BATCH_FROM else self._batch(part))
            metrics.count_facts(part, stored)
            written += stored
        return written

    async def append_unless(self, fact: Fact, kinds: tuple[type[Fact], ...]) -> bool:
        """Append a fact unless the run's log contains a fact of one of these kinds. See the port.

        The broker stores it only if the log of the run is still as it was read.

        Raises:
            UnavailableError: the server did not confirm, or the log keeps changing. Appending again is safe.
        """
        place, everything = fact_codec.subject(fact), subjects.run_all(fact.run_id)
        body = self._body(fact)
        for _ in range(_TRIES):
            messages = await self._bus.read(subjects.RUNS, everything)
            recorded = [entry.fact for message in messages if (entry := from_direct(message)) is not None]
            if any(isinstance(known, kinds) or known.tail == fact.tail for known in recorded):
                return False
            last = _headers(messages[-1])["Nats-Sequence"] if messages else "0"
            condition = {_EXPECTED: last, f"{_EXPECTED}-Subject": everything}
            try:
                await self._bus.publish(place, body, self._headers(fact) | condition)
            except BusError as error:
                if error.code not in _WRONG_LAST:
                    raise
            else:
                metrics.count_facts([fact], [True])
                return True
        raise UnavailableError(f"the log of run {fact.run_id} changes too fast to append {fact.tail}")

    async def read(self, run_id: str, after: int = 0) -> list[Recorded]:
        """The readable facts of a run above `after`, in log order; unreadable ones as their placeholders."""
        found: list[Recorded] = []
        # Page by page, because decoding hundreds of thousands of facts at once would block the process for seconds.
        async for page in self._bus.pages(subjects.RUNS, subjects.run_all(run_id), after):
            found += [recorded for message in page if (recorded := from_direct(message)) is not None]
        return found

    async def last(self, places: Sequence[str]) -> dict[str, Recorded]:
        """The facts at these subjects, by subject; subjects without a fact are missing."""
        found: dict[str, Recorded] = {}
        for start in range(0, len(places), READ_LIMIT):
            for message in await self._bus.direct_get(
                subjects.RUNS, {"multi_last": list(places[start : start + READ_LIMIT])}
            ):
                recorded = from_direct(message)
                if recorded is not None:
                    found[_headers(message)["Nats-Subject"]] = recorded
        return found

    async def _singles(self, facts: Sequence[Fact]) -> list[bool]:
        bodies = [self._body(fact) for fact in facts]  # encode all before any is sent
        return await asyncio.gather(*map(self._single, facts, bodies))

    async def _single(self, fact: Fact, body: bytes) -> bool:
        headers = self._headers(fact)
        try:
            await self._bus.publish(fact_codec.subject(fact), body, headers)
        except BusError as error:
            if error.code in _WRONG_LAST:
                return False
            raise
        return True

    async def _batch(self, facts: Sequence[Fact]) -> list[bool]:
        """One atomic batch; when it is refused because some subjects are taken, again without those.

        The refusal does not say which. If no subject can be seen to be taken, because two of these facts have the same
        one or the replica that was read lags, each fact is published on its own.
        """
        left = list(facts)
        while left:
            answer = await self._send(left)
            code = int(answer.get("error", {}).get("err_code", 0))
            if code not in _WRONG_LAST:
                check(answer)
                break
            # An append-once subject stays taken, so this loop ends.
            taken = await self._taken([fact for fact in left if fact.append_once])
            rest = [fact for fact in left if fact_codec.subject(fact) not in taken]
            if len(rest) == len(left):
                written = await self._singles(left)
                left = [fact for fact, was_written in zip(left, written, strict=True) if was_written]
                break
            left = rest
        kept = {id(fact) for fact in left}
        return [id(fact) in kept for fact in facts]

    async def _send(self, facts: Sequence[Fact]) -> dict[str, Any]:
        batch = f"{_PREFIX}-{next(_BATCHES)}"
        # All are encoded before the first is sent: a started batch must be committed.
        bodies = [self._body(fact) for fact in facts]
        *first, last = zip(facts, bodies, strict=True)
        numbered = {"Nats-Batch-Id": batch} if first else {}
        for n, (fact, body) in enumerate(first, 1):
            headers = self._headers(fact) | numbered | {"Nats-Batch-Sequence": str(n)}
            await self._bus.send(fact_codec.subject(fact), body, headers)
        fact, body = last
        if first:
            numbered |= {"Nats-Batch-Sequence": str(len(facts)), "Nats-Batch-Commit": "1"}
        return await self._bus.store(fact_codec.subject(fact), body, self._headers(fact) | numbered)

    async def _taken(self, facts: Sequence[Fact]) -> set[str]:
        places = [fact_codec.subject(fact) for fact in facts]
        found: set[str] = set()
        for start in range(0, len(places), READ_LIMIT):
            part = {"multi_last": places[start : start + READ_LIMIT]}
            for message in await self._bus.direct_get(subjects.RUNS, part):
                found.add(_headers(message)["Nats-Subject"])
        return found

    def _body(self, fact: Fact) -> bytes:
        """Encode a fact. An unreadable body must not be written: its subject could never be written again."""
        body = fact_codec.encode(fact)
        limit = min(fact_codec.MAX_BODY, self._bus.client.max_payload - _HEADERS)
        if len(body) > limit:
            raise FactTooLargeError(f"{fact.tail} has {len(body)} bytes; the limit is {limit}")
        return body

    def _headers(self, fact: Fact) -> dict[str, str]:
        headers = fact_codec.headers(fact, self._source)
        if fact.append_once:
            headers[_EXPECTED] = "0"
        if isinstance(fact, ArtifactCommitted):
            # Only the latest of a name counts; frequent checkpoints must not fill the log.
            headers["Nats-Rollup"] = "sub"
        return headers


def from_direct(message: Msg) -> Recorded | None:
    """Read a message of a direct get; None when it is not a fact."""
    headers = _headers(message)
    fact = fact_codec.read(headers["Nats-Subject"], message.data)
    if fact is None:
        return None
    return Recorded(int(headers["Nats-Sequence"]), timestamp(headers["Nats-Time-Stamp"]), fact)


def timestamp(text: str) -> float:
    """Unix seconds of an RFC 3339 time with up to nine decimals, as NATS writes it.

    Identical to the time of a consumer in nanoseconds: a fact has the same time for all readers.
    """
    head, _, fraction = text.rstrip("Z").partition(".")
    seconds = int(datetime.fromisoformat(head + "+00:00").timestamp())
    return (seconds * 10**9 + int(fraction.ljust(9, "0")[:9] or "0")) / 1e9


def _headers(message: Msg) -> dict[str, str]:
    return message.headers or {}
