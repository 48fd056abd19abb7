"""The book of limits and their sizes, in their bucket.

The book is one entry that is replaced only where it is still what was read, so that all who change it, on however many
replicas, do so one after another. It names the revision of the sizes that it was changed by: who knows older ones
reads them again first, so that no slot is given by a size that was lowered before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import nats.errors
import orjson
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from penstock_adapters.nats.buckets.kv import Bucket
from penstock_adapters.nats.bus import Bus
from penstock_contracts import subjects
from penstock_core.errors import PenstockError
from penstock_core.facts import Limit
from penstock_core.limits.slot_ledger import POOL, Holder, LimitsLedger, Notice, SlotKey, Waiter

_FORM = 2
_TRIES = 100


class UnreadableLimitsError(PenstockError):
    """The stored book of limits is not of a form that is known here."""


class LimitsStore:
    """The book. `read` gives it with its revision, `replace` stores another one in its place."""

    def __init__(self, bus: Bus) -> None:
        self._bucket = Bucket(bus, subjects.LIMITS_BUCKET)

    async def read(self) -> tuple[LimitsLedger | None, int]:
        """The book as it was last acknowledged, and its revision. None: there is none, or nobody can read it."""
        entry = await self._bucket.get_fresh(subjects.LIMITS_STATE)
        if entry is None:
            return None, 0
        try:
            return unpack(entry.value), entry.revision
        except UnreadableLimitsError:
            return None, entry.revision

    async def replace(self, ledger: LimitsLedger, revision: int) -> int | None:
        """Store a book in place of that of `revision`; its new revision, or None when it has changed meanwhile."""
        return await self._bucket.put(subjects.LIMITS_STATE, pack(ledger), revision)


class LimitSizes:
    """The platform's settings: slots by name of a limit, `pool:NAME` for the size of a pool."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._bucket = Bucket(bus, subjects.LIMITS_BUCKET)
        self._subscription: Subscription | None = None
        self._changed: Callable[[], None] = lambda: None
        self.now: Mapping[str, int] = {}
        self.revision = 0
        self.pools: frozenset[str] = frozenset()
        """Names of the pools that have a size."""

    async def read(self) -> Mapping[str, int]:
        """The settings as they were last acknowledged."""
        entry = await self._bucket.get_fresh(subjects.LIMITS_SIZES)
        if entry is not None:
            self._take(entry.value, entry.revision)
        return self.now

    async def limited_pools(self) -> frozenset[str]:
        """Read which pools have a limited size."""
        await self.read()
        return self.pools

    async def watch(self, changed: Callable[[], None]) -> None:
        """Hear of changes from now on, and read them again after each reconnection."""
        self._changed = changed
        self._subscription = await self._bus.subscribe(
            f"$KV.{subjects.LIMITS_BUCKET}.{subjects.LIMITS_SIZES}", self._heard
        )
        self._bus.on_reconnect(changed)
        await self.read()

    async def close(self) -> None:
        """Hear of no more changes."""
        self._changed = lambda: None
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with contextlib.suppress(nats.errors.Error, OSError):  # the connection may be gone already
                await subscription.unsubscribe()

    async def change(self, name: str, slots: int | None) -> bool:
        """Set a size, or remove it; whether that changed anything."""
        for _ in range(_TRIES):
            entry = await self._bucket.get_fresh(subjects.LIMITS_SIZES)
            sizes = _sizes(entry.value) if entry is not None else {}
            wanted = {key: value for key, value in sizes.items() if key != name}
            if slots is not None:
                wanted[name] = slots
            if wanted == sizes:
                return False
            body = orjson.dumps(wanted, option=orjson.OPT_SORT_KEYS)
            if await self._bucket.put(subjects.LIMITS_SIZES, body, entry.revision if entry else 0) is not None:
                return True
        raise PenstockError("the settings of limits change too fast to be changed now: try again")

    async def _heard(self, message: Msg) -> None:
        # What is heard here may not be stored: it is only a reason to look.
        self._changed()

    def _take(self, value: bytes, revision: int) -> None:
        if revision > self.revision:
            self.now, self.revision = _sizes(value), revision
            self.pools = frozenset(name.removeprefix(POOL) for name in self.now if name.startswith(POOL))


def _sizes(value: bytes) -> dict[str, int]:
    try:
        read: dict[str, int] = orjson.loads(value)
        return {str(name): int(slots) for name, slots in read.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise PenstockError(f"the stored settings of limits are unreadable: {error}") from error


# -------------------------------------------------------------------------------------------------------------- form


def pack(ledger: LimitsLedger) -> bytes:
    """A book as it is stored: names of limits once, places as short lists."""
    names: dict[str, int] = {}

    def number(name: str) -> int:
        return names.setdefault(name, len(names))

    body = {
        "form": _FORM,
        "holders": [
            [*h.place, [number(name) for name in h.limits], h.since, h.asked, int(h.cancel_requested)]
            for h in ledger.holders.values()
        ],
        "waiters": [
            [*w.place, [[number(n.name), n.most] for n in w.needs], w.priority, w.since, int(w.cancel_requested)]
            for w in ledger.waiters.values()
        ],
        "pending_notices": [[*place, notice.value] for place, notice in ledger.pending_notices],
        "outside": ledger.outside,
        "sent": ledger.sent,
        "floor": ledger.floor,
        "sizes": ledger.settings,
        "whole": ledger.whole,
        "names": list(names),
    }
    return orjson.dumps(body)


def unpack(data: bytes) -> LimitsLedger:
    """Read a stored book.

    Raises:
        UnreadableBook: it is of another form.
    """
    try:
        body: dict[str, Any] = orjson.loads(data)
        if body["form"] != _FORM:
            raise UnreadableLimitsError(f"the book of limits has form {body['form']}, and {_FORM} is known here")
        names: list[str] = body["names"]
        holders = [
            Holder((run, key, n), tuple(names[i] for i in held), since, asked, bool(cancel_requested))
            for run, key, n, held, since, asked, cancel_requested in body["holders"]
        ]
        waiters = [
            Waiter(
                (run, key, n),
                tuple(Limit(name=names[i], most=most) for i, most in needs),
                priority,
                since,
                bool(cancel_requested),
            )
            for run, key, n, needs, priority, since, cancel_requested in body["waiters"]
        ]
        pending_notices: list[tuple[SlotKey, Notice]] = [
            ((run, key, n), Notice(word)) for run, key, n, word in body["pending_notices"]
        ]
        return LimitsLedger(
            holders={holder.place: holder for holder in holders},
            waiters={waiter.place: waiter for waiter in waiters},
            pending_notices=dict.fromkeys(pending_notices),
            outside=body["outside"],
            sent=body["sent"],
            floor=body["floor"],
            settings=body["sizes"],
            whole=body["whole"],
        )
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UnreadableLimitsError(f"the book of limits is unreadable: {error!r}") from error
