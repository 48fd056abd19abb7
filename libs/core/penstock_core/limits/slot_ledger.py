"""The ledger of limits: which attempts and runs hold slots, which wait, which is next. Pure; times are Unix seconds.

A key is that of an attempt (run, step key, number) or of a run (run, "", 0). It waits for a slot of each of its limits,
acquires all of them at once, and holds them until it is released. Nothing holds one slot while waiting for another, so
there are no deadlocks.

Order: priority, plus one for each `AGEING` seconds of waiting. All waiters age alike, so the order of two waiters never
changes, and a waiter that comes late enough is behind whatever its priority. On a limit that is full for a waiter,
nobody overtakes it. On a limit with free slots, whose waiter waits for another limit, others may go first for
`RESERVE_AFTER` seconds. So no waiter starves. The limit of a pipeline's active runs is not reserved: a run that waits
for the limit of its deployment does not keep runs of other deployments from starting.

The `LimitsLedger` is bounded: waiters beyond `MAX_WAITERS` for a limit, or beyond `WAITERS_BYTES_LIMIT` bytes in all,
are left outside, last of the order first, and read from the log when there is room again (`exhausted_limits`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from penstock_core.access import DEFAULT_PROJECT
from penstock_core.facts import Limit

AGEING = 60.0
RESERVE_AFTER = 60.0
PRIORITIES = 1000
"""Priorities are clamped to plus and minus this."""

MAX_WAITERS = 1000
WAITERS_BYTES_LIMIT = 160 * 1024
HOLDERS_BYTES_LIMIT = 280 * 1024
RUNS = "runs:"
"""Prefix of `project/pipeline` in the name of the limit of its active runs."""

POOL = "pool:"
"""Prefix of the name of a pool in the name of the limit of its size."""

_ENDLESS = 2**53

SlotKey = tuple[str, str, int]
"""Run, step key and attempt; the key of a run itself has an empty step key and attempt 0."""


def named(project: str, name: str) -> str:
    """Return the name in the ledger of a limit of steps: names are unique in a project only."""
    return name if project == DEFAULT_PROJECT else f"{project}/{name}"


def turn(priority: int, since: float) -> tuple[float, float]:
    """Return the sort key of a waiter, first in order first. It does not change while it waits."""
    return (since - AGEING * max(-PRIORITIES, min(priority, PRIORITIES)), since)


class Notice(StrEnum):
    """What a run must be notified of, by a fact in its log."""

    GRANTED = "granted"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Waiter:
    """Waits since `since` for a slot of each of `needs`. With `cancel_requested`, it gets none."""

    slot_key: SlotKey
    needs: tuple[Limit, ...]
    priority: int = 0
    since: float = 0.0
    cancel_requested: bool = False

    @property
    def rank(self) -> tuple[float, float, SlotKey]:
        """Sort key, first in order first."""
        return (*turn(self.priority, self.since), self.slot_key)

    def effective(self, now: float) -> float:
        """Its present priority, with what it gained by waiting."""
        return self.priority + max(0.0, now - self.since) / AGEING


@dataclass(frozen=True, slots=True)
class Holder:
    """Holds a slot of each of `limits` since `since`; it requested them at `asked`."""

    slot_key: SlotKey
    limits: tuple[str, ...]
    since: float = 0.0
    asked: float = 0.0
    cancel_requested: bool = False


@dataclass(slots=True)
class LimitsLedger:
    """All limits of a platform. Change it through the functions of this module only.

    Attributes:
        pending_notices: notices that may not be in the log yet; every change of the ledger appends them first.
        outside: limits with waiters outside of the ledger, with the count of `sent` when that was last so.
        sent: how many waiters were sent outside so far.
        newest: when the newest runs were requested, oldest first, by limit of a pipeline whose newest runs cancel
            previous ones: those that finished are among them.
        floor: sequence in the log up to which every queued attempt is in the ledger or has ended.
        settings: revision of the configured limits by which the ledger was last changed.
        whole: whether it was compared with the log since it was created: it may replace a lost one.
    """

    holders: dict[SlotKey, Holder] = field(default_factory=dict[SlotKey, Holder])
    waiters: dict[SlotKey, Waiter] = field(default_factory=dict[SlotKey, Waiter])
    pending_notices: dict[tuple[SlotKey, Notice], None] = field(default_factory=dict[tuple[SlotKey, Notice], None])
    outside: dict[str, int] = field(default_factory=dict[str, int])
    sent: int = 0
    newest: dict[str, tuple[float, ...]] = field(default_factory=dict[str, tuple[float, ...]])
    floor: int = 0
    settings: int = 0
    whole: bool = False

    def copy(self) -> LimitsLedger:
        """Return a copy. Entries are immutable, so they are shared."""
        return replace(
            self,
            holders=dict(self.holders),
            waiters=dict(self.waiters),
            pending_notices=dict(self.pending_notices),
            outside=dict(self.outside),
            newest=dict(self.newest),
        )

    def taken(self) -> Counter[str]:
        """Slots in use, by limit."""
        return Counter(name for holder in self.holders.values() for name in holder.limits)

    def waiting(self) -> Counter[str]:
        """Waiters, by limit."""
        return Counter(limit.name for waiter in self.waiters.values() for limit in waiter.needs)


def capacity(limit: Limit, sizes: Mapping[str, int]) -> int | None:
    """Return the slots of a limit: as configured, else as the waiter defines it; None if neither does.

    A pool without a configured size is unlimited.
    """
    return sizes.get(limit.name, _ENDLESS if limit.name.startswith(POOL) else limit.most)


def once_each(needs: Iterable[Limit]) -> tuple[Limit, ...]:
    """Return the limits without duplicates."""
    return tuple({limit.name: limit for limit in needs}.values())


def enqueue(ledger: LimitsLedger, waiter: Waiter) -> None:
    """Queue a waiter, unless it waits or holds already."""
    if waiter.slot_key not in ledger.holders and waiter.slot_key not in ledger.waiters:
        ledger.waiters[waiter.slot_key] = waiter


def release(ledger: LimitsLedger, slot_key: SlotKey) -> None:
    """Release the slots of a key, or remove its waiter."""
    ledger.holders.pop(slot_key, None)
    ledger.waiters.pop(slot_key, None)
    drop_notices(ledger, [(slot_key, notice) for notice in Notice])


def hold(ledger: LimitsLedger, waiter: Waiter, now: float) -> None:
    """Add a holder that has its slots by the log, even beyond the limit."""
    if waiter.slot_key not in ledger.holders:
        ledger.waiters.pop(waiter.slot_key, None)
        names = tuple(limit.name for limit in waiter.needs)
        ledger.holders[waiter.slot_key] = Holder(waiter.slot_key, names, now, waiter.since)


def drop_notices(ledger: LimitsLedger, notices: Iterable[tuple[SlotKey, Notice]]) -> None:
    """Drop notices that are in the log."""
    for notice in notices:
        ledger.pending_notices.pop(notice, None)


def ask_to_leave(ledger: LimitsLedger, slot_key: SlotKey) -> None:
    """Ask a key to make room. It keeps its slots until it is released; a waiter gets none."""
    if (holder := ledger.holders.get(slot_key)) is not None:
        ledger.holders[slot_key] = replace(holder, cancel_requested=True)
    elif (waiter := ledger.waiters.get(slot_key)) is not None:
        ledger.waiters[slot_key] = replace(waiter, cancel_requested=True)
    else:
        return
    ledger.pending_notices[slot_key, Notice.CANCELLED] = None


def serve(ledger: LimitsLedger, sizes: Mapping[str, int], now: float) -> None:
    """Grant free slots in order; each grant adds a notice."""
    taken, closed = ledger.taken(), set[str]()
    room = HOLDERS_BYTES_LIMIT - sum(map(_holder_weight, ledger.holders.values()))
    for waiter in sorted(ledger.waiters.values(), key=lambda waiter: waiter.rank):
        if waiter.cancel_requested or unknown(waiter, sizes) is not None:
            continue
        full = [limit.name for limit in waiter.needs if limit.name in closed or _is_full(limit, taken, sizes)]
        if full:
            closed.update(full)
            if now - waiter.since >= RESERVE_AFTER:
                closed.update(limit.name for limit in waiter.needs if not limit.name.startswith(RUNS))
            continue
        holder = Holder(waiter.slot_key, tuple(limit.name for limit in waiter.needs), now, waiter.since)
        room -= _holder_weight(holder)
        if room < 0:
            return
        del ledger.waiters[waiter.slot_key]
        ledger.holders[waiter.slot_key] = holder
        ledger.pending_notices[waiter.slot_key, Notice.GRANTED] = None
        taken.update(holder.limits)


def unknown(waiter: Waiter, sizes: Mapping[str, int]) -> str | None:
    """Return the first limit of a waiter whose number of slots is unknown."""
    return next((limit.name for limit in waiter.needs if capacity(limit, sizes) is None), None)


def trim(ledger: LimitsLedger) -> None:
    """Send waiters outside until the ledger fits: those of the most crowded limit, last in order first."""
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
        while queue and (queue[-1].cancel_requested or queue[-1].slot_key not in ledger.waiters):
            queue.pop()
        if not queue:
            del waiting[name]
            continue
        waiter = queue.pop()
        del ledger.waiters[waiter.slot_key]
        weight -= _waiter_weight(waiter)
        ledger.sent += 1
        for limit in waiter.needs:
            waiting[limit.name] -= 1
            ledger.outside[limit.name] = ledger.sent


def exhausted_limits(ledger: LimitsLedger) -> set[str]:
    """Return the limits with waiters outside while there is room in the ledger."""
    if not ledger.outside:
        return set()
    waiting = ledger.waiting()
    most = max(waiting.values(), default=0)
    roomy = sum(map(_waiter_weight, ledger.waiters.values())) * 2 < WAITERS_BYTES_LIMIT
    return {name for name in ledger.outside if waiting[name] * 2 < MAX_WAITERS and (roomy or waiting[name] * 2 < most)}


def _is_full(limit: Limit, taken: Mapping[str, int], sizes: Mapping[str, int]) -> bool:
    return taken.get(limit.name, 0) >= (capacity(limit, sizes) or 0)


def _waiter_weight(waiter: Waiter) -> int:
    """Estimate the bytes of a waiter in the stored ledger, from above."""
    return _key_weight(waiter.slot_key) + 48 + 12 * len(waiter.needs)


def _holder_weight(holder: Holder) -> int:
    """Estimate the bytes of a holder in the stored ledger with its notice."""
    return 2 * _key_weight(holder.slot_key) + 84 + 4 * len(holder.limits)


def _key_weight(slot_key: SlotKey) -> int:
    return len(slot_key[0]) + len(slot_key[1]) + 20
