"""Limits: who holds slots, who waits for them, and who is next. Pure; time is an argument, in Unix seconds.

A *place* is an attempt (run, key, number) or a run (run, "", 0). It waits for a slot of each of its limits, gets all of
them at once, and holds them until it leaves: nobody holds one slot while it waits for another, so nothing deadlocks.

Who is next: priority counts, and each `AGEING` seconds of waiting count as one more of it. Everybody ages alike, so
the order of any two waiters never changes, and whoever came long enough after another is behind it whatever its
priority. Nobody overtakes on a limit that is full for somebody before. On a limit that has room for one who waits for
another limit, others go first for `PATIENCE` seconds, then no longer. So everybody's turn comes.

All of it is one `Book`, which is bounded: waiters beyond `CROWD` for a limit, or beyond `WAITING_ROOM` bytes in all,
stay outside, last of the order first, and are read from the log again when there is room (`short_of`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from penstock_core.facts import Limit

AGEING = 60.0
PATIENCE = 60.0
PRIORITIES = 1000
"""Priorities count from minus to plus this."""

CROWD = 1000
WAITING_ROOM = 160 * 1024
HOLDING_ROOM = 280 * 1024
POOL = "pool:"
"""Before the name of a pool, in the name of the limit that is its size."""

_ENDLESS = 2**53

Place = tuple[str, str, int]
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
    """Waits for a slot of each of `needs` since a time. Who is `leaving` gets none any more."""

    place: Place
    needs: tuple[Limit, ...]
    priority: int = 0
    since: float = 0.0
    leaving: bool = False

    @property
    def rank(self) -> tuple[float, float, Place]:
        """Sorts waiters by whose turn comes first."""
        return (*turn(self.priority, self.since), self.place)

    def effective(self, now: float) -> float:
        """Its priority now, with what it gained by waiting."""
        return self.priority + max(0.0, now - self.since) / AGEING


@dataclass(frozen=True, slots=True)
class Holder:
    """Holds a slot of each of `limits` since a time, and had `asked` before. Who is `leaving` was told to make room."""

    place: Place
    limits: tuple[str, ...]
    since: float = 0.0
    asked: float = 0.0
    leaving: bool = False


@dataclass(slots=True)
class Book:
    """All limits of a platform. Change it through the functions of this module only.

    Attributes:
        owed: what places must be told and perhaps are not yet: whoever changes the book sees to it first.
        outside: limits for which somebody waits who is not in the book, with the count of `sent` when that was last so.
        sent: how many were sent outside so far.
        floor: sequence in the log up to which every held attempt is in the book or over.
        settings: revision of the platform's settings that the book was last changed by.
        whole: whether it was compared with the log since it was begun: it may have taken the place of a lost one.
    """

    holders: dict[Place, Holder] = field(default_factory=dict[Place, Holder])
    waiters: dict[Place, Waiter] = field(default_factory=dict[Place, Waiter])
    owed: dict[tuple[Place, Notice], None] = field(default_factory=dict[tuple[Place, Notice], None])
    outside: dict[str, int] = field(default_factory=dict[str, int])
    sent: int = 0
    floor: int = 0
    settings: int = 0
    whole: bool = False

    def copy(self) -> Book:
        """Another book that says the same; entries are never changed, so they are shared."""
        return replace(
            self,
            holders=dict(self.holders),
            waiters=dict(self.waiters),
            owed=dict(self.owed),
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


def ask(book: Book, waiter: Waiter) -> None:
    """Have a place wait, unless it waits or holds already."""
    if waiter.place not in book.holders and waiter.place not in book.waiters:
        book.waiters[waiter.place] = waiter


def leave(book: Book, place: Place) -> None:
    """Free what a place holds, or end its wait."""
    book.holders.pop(place, None)
    book.waiters.pop(place, None)
    tell(book, [(place, notice) for notice in Notice])


def hold(book: Book, waiter: Waiter, now: float) -> None:
    """Enter a place that the log says has its slots, even where that is one too many."""
    if waiter.place not in book.holders:
        book.waiters.pop(waiter.place, None)
        names = tuple(limit.name for limit in waiter.needs)
        book.holders[waiter.place] = Holder(waiter.place, names, now, waiter.since)


def tell(book: Book, notices: Iterable[tuple[Place, Notice]]) -> None:
    """These are in the log."""
    for notice in notices:
        book.owed.pop(notice, None)


def dismiss(book: Book, place: Place) -> None:
    """Tell a place to make room. It keeps what it holds until it leaves; if it waits, it gets nothing any more."""
    if (holder := book.holders.get(place)) is not None:
        book.holders[place] = replace(holder, leaving=True)
    elif (waiter := book.waiters.get(place)) is not None:
        book.waiters[place] = replace(waiter, leaving=True)
    else:
        return
    book.owed[place, Notice.CANCELLED] = None


def serve(book: Book, sizes: Mapping[str, int], now: float) -> None:
    """Give free slots to those whose turn it is; who gets its slots is owed the notice of it."""
    taken, closed = book.taken(), set[str]()
    room = HOLDING_ROOM - sum(map(_holder_weight, book.holders.values()))
    for waiter in sorted(book.waiters.values(), key=lambda waiter: waiter.rank):
        if waiter.leaving or unknown(waiter, sizes) is not None:
            continue
        full = [limit.name for limit in waiter.needs if limit.name in closed or _is_full(limit, taken, sizes)]
        if full:
            closed.update(full)
            if now - waiter.since >= PATIENCE:
                closed.update(limit.name for limit in waiter.needs)
            continue
        holder = Holder(waiter.place, tuple(limit.name for limit in waiter.needs), now, waiter.since)
        room -= _holder_weight(holder)
        if room < 0:
            return
        del book.waiters[waiter.place]
        book.holders[waiter.place] = holder
        book.owed[waiter.place, Notice.GRANTED] = None
        taken.update(holder.limits)


def unknown(waiter: Waiter, sizes: Mapping[str, int]) -> str | None:
    """The first of its limits of which nobody says how many slots it has."""
    return next((limit.name for limit in waiter.needs if capacity(limit, sizes) is None), None)


def trim(book: Book) -> None:
    """Send waiters outside until the rest fits: of the most crowded limit, the last in order."""
    waiting = book.waiting()
    weight = sum(map(_waiter_weight, book.waiters.values()))
    if weight <= WAITING_ROOM and all(count <= CROWD for count in waiting.values()):
        return
    queues: dict[str, list[Waiter]] = {name: [] for name in waiting}
    for waiter in sorted(book.waiters.values(), key=lambda waiter: waiter.rank):
        for limit in waiter.needs:
            queues[limit.name].append(waiter)
    while waiting and (weight > WAITING_ROOM or max(waiting.values()) > CROWD):
        name = max(waiting, key=lambda name: waiting[name])
        queue = queues[name]
        while queue and (queue[-1].leaving or queue[-1].place not in book.waiters):
            queue.pop()
        if not queue:
            del waiting[name]
            continue
        waiter = queue.pop()
        del book.waiters[waiter.place]
        weight -= _waiter_weight(waiter)
        book.sent += 1
        for limit in waiter.needs:
            waiting[limit.name] -= 1
            book.outside[limit.name] = book.sent


def short_of(book: Book) -> set[str]:
    """Limits for which somebody waits outside while there is room in the book."""
    if not book.outside:
        return set()
    waiting = book.waiting()
    most = max(waiting.values(), default=0)
    roomy = sum(map(_waiter_weight, book.waiters.values())) * 2 < WAITING_ROOM
    return {name for name in book.outside if waiting[name] * 2 < CROWD and (roomy or waiting[name] * 2 < most)}


def _is_full(limit: Limit, taken: Mapping[str, int], sizes: Mapping[str, int]) -> bool:
    return taken.get(limit.name, 0) >= (capacity(limit, sizes) or 0)


def _waiter_weight(waiter: Waiter) -> int:
    """Bytes of a waiter in the stored book, rather more than less."""
    return _place_weight(waiter.place) + 48 + 12 * len(waiter.needs)


def _holder_weight(holder: Holder) -> int:
    """Bytes of a holder in the stored book with the notice that it is owed."""
    return 2 * _place_weight(holder.place) + 84 + 4 * len(holder.limits)


def _place_weight(place: Place) -> int:
    return len(place[0]) + len(place[1]) + 20
