"""Limits: who holds slots, who waits for them, and who is next. Pure; time is an argument, in Unix seconds.

A *place* is an attempt (run, key, number) or a run (run, "", 0). It waits for a slot of each of its limits, gets all of
them at once, and holds them until it leaves: nobody holds one slot while it waits for another, so nothing deadlocks.

Who is next: priority counts, and each `AGEING` seconds of waiting count as one more of it. Everybody ages alike, so
the order of any two waiters never changes, and whoever came long enough after another is behind it whatever its
priority. Nobody overtakes on a limit that is full for somebody before. On a limit that has room for one who waits for
another limit, others go first for `RESERVE_AFTER` seconds, then no longer. So everybody's turn comes.

All of it is one `LimitsLedger`, which is bounded: waiters beyond `MAX_WAITERS` for a limit, or beyond
`WAITERS_BYTES_LIMIT` bytes in all,
stay outside, last of the order first, and are read from the log again when there is room (`exhausted_limits`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from penstock_core.facts import Limit

AGEING = 60.0
RESERVE_AFTER = 60.0
PRIORITIES = 1000
"""Priorities count from minus to plus this."""

MAX_WAITERS = 1000
WAITERS_BYTES_LIMIT = 160 * 1024
HOLDERS_BYTES_LIMIT = 280 * 1024
POOL = "pool:"
"""Before the name of a pool, in the name of the limit that is its size."""

_ENDLESS = 2**53

SlotKey = tuple[str, str, int]
"""Run, step key, attempt; a run itself has an empty key and attempt 0."""


def turn(priority: int, since: float) -> tuple[float, float]:
    """Sorts those who wait since a time by whose turn comes first. It does not change while they wait."""
    return (since - AGEING * max(-PRIORITIES, min(priority, PRIORITIES)), since)


class Notice(StrEnum):
    """What a place has to be told, by a fact in its run's log."""

    GRANTED = "granted"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Waiter:
    """Waits for a slot of each of `needs` since a time. Who is `cancel_requested` gets none any more."""

    place: SlotKey
    needs: tuple[Limit, ...]
    priority: int = 0
    since: float = 0.0
    cancel_requested: bool = False

    @property
    def rank(self) -> tuple[float, float, SlotKey]:
        """Sorts waiters by whose turn comes first."""
        return (*turn(self.priority, self.since), self.place)

    def effective(self, now: float) -> float:
        """Its priority now, with what it gained by waiting."""
        return self.priority + max(0.0, now - self.since) / AGEING


@dataclass(frozen=True, slots=True)
class Holder:
    """Holds a slot of each of `limits` since a time; it requested them at `asked`."""

    place: SlotKey
    limits: tuple[str, ...]
    since: float = 0.0
    asked: float = 0.0
    cancel_requested: bool = False


@dataclass(slots=True)
class LimitsLedger:
    """All limits of a platform. Change it through the functions of this module only.

    Attributes:
        owed: what places must be told and perhaps are not yet: whoever changes the book sees to it first.
        outside: limits for which somebody waits who is not in the book, with the count of `sent` when that was last so.
        sent: how many were sent outside so far.
        floor: sequence in the log up to which every held attempt is in the book or over.
        settings: revision of the platform's settings that the book was last changed by.
        whole: whether it was compared with the log since it was begun: it may have taken the place of a lost one.
    """

    holders: dict[SlotKey, Holder] = field(default_factory=dict[SlotKey, Holder])
    waiters: dict[SlotKey, Waiter] = field(default_factory=dict[SlotKey, Waiter])
    pending_notices: dict[tuple[SlotKey, Notice], None] = field(default_factory=dict[tuple[SlotKey, Notice], None])
    outside: dict[str, int] = field(default_factory=dict[str, int])
    sent: int = 0
    floor: int = 0
    settings: int = 0
    whole: bool = False

    def copy(self) -> LimitsLedger:
        """Another book that says the same; entries are never changed, so they are shared."""
        return replace(
            self,
            holders=dict(self.holders),
            waiters=dict(self.waiters),
            pending_notices=dict(self.pending_notices),
            outside=dict(self.outside),
        )

    def taken(self) -> Counter[str]:
        """Slots that are held, by limit."""
        return Counter(name for holder in self.holders.values() for name in holder.limits)

    def waiting(self) -> Counter[str]:
        """Places that wait, by limit."""
        return Counter(limit.name for waiter in self.waiters.values() for limit in waiter.needs)


def capacity(limit: Limit, sizes: Mapping[str, int]) -> int | None:
    """Slots of a limit: the platform's setting, else what who needs it says itself; None when nobody says.

    A pool whose size was removed has as many as anybody likes.
    """
    return sizes.get(limit.name, _ENDLESS if limit.name.startswith(POOL) else limit.most)


def once_each(needs: Iterable[Limit]) -> tuple[Limit, ...]:
    """Limits without those that are named twice."""
    return tuple({limit.name: limit for limit in needs}.values())


def ask(ledger: LimitsLedger, waiter: Waiter) -> None:
    """Have a place wait, unless it waits or holds already."""
    if waiter.place not in ledger.holders and waiter.place not in ledger.waiters:
        ledger.waiters[waiter.place] = waiter


def leave(ledger: LimitsLedger, place: SlotKey) -> None:
    """Free what a place holds, or end its wait."""
    ledger.holders.pop(place, None)
    ledger.waiters.pop(place, None)
    tell(ledger, [(place, notice) for notice in Notice])


def hold(ledger: LimitsLedger, waiter: Waiter, now: float) -> None:
    """Enter a place that the log says has its slots, even where that is one too many."""
    if waiter.place not in ledger.holders:
        ledger.waiters.pop(waiter.place, None)
        names = tuple(limit.name for limit in waiter.needs)
        ledger.holders[waiter.place] = Holder(waiter.place, names, now, waiter.since)


def tell(ledger: LimitsLedger, notices: Iterable[tuple[SlotKey, Notice]]) -> None:
    """These are in the log."""
    for notice in notices:
        ledger.pending_notices.pop(notice, None)


def dismiss(ledger: LimitsLedger, place: SlotKey) -> None:
    """Tell a place to make room. It keeps what it holds until it leaves; if it waits, it gets nothing any more."""
    if (holder := ledger.holders.get(place)) is not None:
        ledger.holders[place] = replace(holder, cancel_requested=True)
    elif (waiter := ledger.waiters.get(place)) is not None:
        ledger.waiters[place] = replace(waiter, cancel_requested=True)
    else:
        return
    ledger.pending_notices[place, Notice.CANCELLED] = None


def serve(ledger: LimitsLedger, sizes: Mapping[str, int], now: float) -> None:
    """Give free slots to those whose turn it is; who gets its slots is owed the notice of it."""
    taken, closed = ledger.taken(), set[str]()
    room = HOLDERS_BYTES_LIMIT - sum(map(_holder_weight, ledger.holders.values()))
    for waiter in sorted(ledger.waiters.values(), key=lambda waiter: waiter.rank):
        if waiter.cancel_requested or unknown(waiter, sizes) is not None:
            continue
        full = [limit.name for limit in waiter.needs if limit.name in closed or _is_full(limit, taken, sizes)]
        if full:
            closed.update(full)
            if now - waiter.since >= RESERVE_AFTER:
                closed.update(limit.name for limit in waiter.needs)
            continue
        holder = Holder(waiter.place, tuple(limit.name for limit in waiter.needs), now, waiter.since)
        room -= _holder_weight(holder)
        if room < 0:
            return
        del ledger.waiters[waiter.place]
        ledger.holders[waiter.place] = holder
        ledger.pending_notices[waiter.place, Notice.GRANTED] = None
        taken.update(holder.limits)


def unknown(waiter: Waiter, sizes: Mapping[str, int]) -> str | None:
    """The first of its limits of which nobody says how many slots it has."""
    return next((limit.name for limit in waiter.needs if capacity(limit, sizes) is None), None)


def trim(ledger: LimitsLedger) -> None:
    """Send waiters outside until the rest fits: of the most crowded limit, the last in order."""
    waiting = ledger.waiting()
    weight = sum(map(_waiter_weight, ledger.waiters.values()))
    if weight <= WAITERS_BYTES_LIMIT and all(count <= MAX_WAITERS for count in waiting.values()):
        return
    queues: dict[str, list[Waiter]] = {name: [] for name in waiting}
    for waiter in sorted(ledger.waiters.values(), key=lambda waiter: waiter.rank):
        for limit in waiter.needs:
            queues[limit.name].append(waiter)
    while waiting and (weight > WAITERS_BYTES_LIMIT or max(waiting.values()) > MAX_WAITERS):
        name = max(waiting, key=lambda name: waiting[name])
        queue = queues[name]
        while queue and (queue[-1].cancel_requested or queue[-1].place not in ledger.waiters):
            queue.pop()
        if not queue:
            del waiting[name]
            continue
        waiter = queue.pop()
        del ledger.waiters[waiter.place]
        weight -= _waiter_weight(waiter)
        ledger.sent += 1
        for limit in waiter.needs:
            waiting[limit.name] -= 1
            ledger.outside[limit.name] = ledger.sent


def exhausted_limits(ledger: LimitsLedger) -> set[str]:
    """Limits for which somebody waits outside while there is room in the book."""
    if not ledger.outside:
        return set()
    waiting = ledger.waiting()
    most = max(waiting.values(), default=0)
    roomy = sum(map(_waiter_weight, ledger.waiters.values())) * 2 < WAITERS_BYTES_LIMIT
    return {name for name in ledger.outside if waiting[name] * 2 < MAX_WAITERS and (roomy or waiting[name] * 2 < most)}


def _is_full(limit: Limit, taken: Mapping[str, int], sizes: Mapping[str, int]) -> bool:
    return taken.get(limit.name, 0) >= (capacity(limit, sizes) or 0)


def _waiter_weight(waiter: Waiter) -> int:
    """Bytes of a waiter in the stored book, rather more than less."""
    return _place_weight(waiter.place) + 48 + 12 * len(waiter.needs)


def _holder_weight(holder: Holder) -> int:
    """Bytes of a holder in the stored book with the notice that it is owed."""
    return 2 * _place_weight(holder.place) + 84 + 4 * len(holder.limits)


def _place_weight(place: SlotKey) -> int:
    return len(place[0]) + len(place[1]) + 20
