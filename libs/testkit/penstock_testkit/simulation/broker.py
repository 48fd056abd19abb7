"""The broker of the simulation: an append-once log and durable consumers like those of NATS, in memory.

A consumer delivers at least once, new messages in log order. A message is redelivered after a nak or an
acknowledgement timeout, possibly while its first receiver still works on it. `consumer_seq` counts all deliveries
without gaps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from penstock_contracts import fact_codec, subjects
from penstock_core.facts import Fact
from penstock_core.ports import Recorded


@dataclass(frozen=True, slots=True)
class Delivery:
    """A fact from a consumer. `delivered` counts the deliveries of this one, this one included."""

    seq: int
    consumer_seq: int
    delivered: int
    fact: Fact


class Consumer:
    """A durable consumer, shared by any number of receivers."""

    def __init__(self, wanted: Callable[[Fact], bool]) -> None:
        self.wanted = wanted
        self.waiting: deque[int] = deque()
        self.again: deque[int] = deque()
        self.ack_pending: dict[int, int] = {}
        self.next_seq = 1
        self._counts: dict[int, int] = {}
        self._facts: dict[int, Fact] = {}

    def publish(self, record: Recorded) -> None:
        """Add a new message of the stream."""
        if self.wanted(record.fact):
            self.waiting.append(record.seq)
            self._facts[record.seq] = record.fact

    def take(self, *, redelivered_first: bool = True) -> Delivery | None:
        """Return the next message, from those to redeliver or from the new ones."""
        order = (self.again, self.waiting) if redelivered_first else (self.waiting, self.again)
        for queue in order:
            if queue:
                seq = queue.popleft()
                self._counts[seq] = self._counts.get(seq, 0) + 1
                delivery = Delivery(seq, self.next_seq, self._counts[seq], self._facts[seq])
                self.ack_pending[seq] = delivery.consumer_seq
                self.next_seq += 1
                return delivery
        return None

    def ack(self, seq: int) -> None:
        """Acknowledge a message by any of its deliveries."""
        self.ack_pending.pop(seq, None)
        if seq in self.again:
            self.again.remove(seq)

    def nack(self, seq: int) -> None:
        """Redeliver a message, unless it was acknowledged."""
        if self.ack_pending.pop(seq, None) is not None:
            self.again.append(seq)

    @property
    def idle(self) -> bool:
        """Whether every message was delivered and acknowledged."""
        return not (self.waiting or self.again or self.ack_pending)


class Broker:
    """The log of all runs. The first fact on an append-once subject wins; every fact gets the next sequence number."""

    def __init__(self) -> None:
        self.records: list[Recorded] = []
        self.consumers: list[Consumer] = []
        self.at = 1_000.0
        self._runs: dict[str, list[Recorded]] = {}
        self._by_subject: dict[str, Recorded] = {}

    def append(self, facts: Sequence[Fact]) -> list[bool]:
        """Append facts; return for each whether it was written."""
        return [self._append(fact_codec.subject(fact), fact) for fact in facts]

    def write_unreadable(self, fact: Fact) -> bool:
        """Write unreadable bytes on the subject of `fact`; readers get its placeholder."""
        corrupt = fact_codec.decode(fact_codec.subject(fact), b"\xff")
        assert isinstance(corrupt, fact_codec.UnreadableFact)
        placeholder_fact = fact_codec.placeholder_fact(corrupt)
        assert placeholder_fact is not None, "nobody would ever know what this place holds"
        return self._append(corrupt.subject, placeholder_fact)

    def read(self, run_id: str) -> list[Recorded]:
        """Return all facts of a run, in log order."""
        return list(self._runs.get(run_id, ()))

    def find(self, run_id: str, tail: str) -> Fact | None:
        """Return the fact on a subject."""
        record = self._by_subject.get(subjects.run(run_id, tail))
        return record.fact if record else None

    def _append(self, subject: str, fact: Fact) -> bool:
        if fact.append_once and subject in self._by_subject:
            return False
        self.at += 0.25
        record = Recorded(len(self.records) + 1, self.at, fact)
        self.records.append(record)
        self._by_subject[subject] = record
        self._runs.setdefault(fact.run_id, []).append(record)
        for consumer in self.consumers:
            consumer.publish(record)
        return True
