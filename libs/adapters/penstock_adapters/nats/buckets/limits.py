"""The limits ledger and the sizes of limits, in their bucket.

The ledger is one entry that is replaced by compare-and-set, so that the changes of all replicas are serialized. It has
the revision of the sizes by which it was changed: a replica with older sizes reads them again first, so that no slot
is granted by a size that was lowered before.
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
from penstock_adapters.shared_reads import SharedReads
from penstock_contracts import subjects
from penstock_core.errors import PenstockError
from penstock_core.facts import Limit
from penstock_core.limits.slot_ledger import POOL, Holder, LimitsLedger, Notice, SlotKey, Waiter

_FORM = 3
_TRIES = 100


class UnreadableLimitsError(PenstockError):
    """The stored limits ledger has an unknown format."""


class LimitsStore:
    """The ledger. `read` returns it with its revision, `replace` stores another one."""

    def __init__(self, bus: Bus) -> None:
        self._bucket = Bucket(bus, subjects.LIMITS_BUCKET)

    async def read(self) -> tuple[LimitsLedger | None, int]:
        """The ledger as last acknowledged, and its revision; None when it is missing or unreadable."""
        entry = await self._bucket.get_fresh(subjects.LIMITS_STATE)
        if entry is None:
            return None, 0
        try:
            return unpack(entry.value), entry.revision
        except UnreadableLimitsError:
            return None, entry.revision

    async def replace(self, ledger: LimitsLedger, revision: int) -> int | None:
        """Replace the ledger of `revision`; returns the new revision, or None when it has changed meanwhile."""
        return await self._bucket.put(subjects.LIMITS_STATE, pack(ledger), revision)


class LimitSizes:
    """The platform's settings: slots by name of a limit, `pool:NAME` for the size of a pool."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._bucket = Bucket(bus, subjects.LIMITS_BUCKET)
        self._reads = SharedReads(self._bucket.get_fresh)
        self._subscription: Subscription | None = None
        self._changed: Callable[[], None] = lambda: None
        self.now: Mapping[str, int] = {}
        self.revision = 0
        self.pools: frozenset[str] = frozenset()
        """Names of the pools that have a size."""

    async def read(self) -> Mapping[str, int]:
        """The settings as they were last acknowledged. If their bucket was lost, they are written again."""
        entry = await self._reads.get(subjects.LIMITS_SIZES)
        if entry is None and self.revision:  # the entry is replaced, but never deleted
            await self._bucket.put(subjects.LIMITS_SIZES, orjson.dumps(self.now, option=orjson.OPT_SORT_KEYS), 0)
            entry = await self._bucket.get_fresh(subjects.LIMITS_SIZES)
        if entry is not None:
            self._take(entry.value, entry.revision)
        return self.now

    async def limited_pools(self) -> frozenset[str]:
        """Read which pools have a limited size."""
        await self.read()
        return self.pools

    async def watch(self, changed: Callable[[], None]) -> None:
        """Subscribe to changes, and read the sizes again after each reconnection."""
        self._changed = changed
        self._subscription = await self._bus.subscribe(
            f"$KV.{subjects.LIMITS_BUCKET}.{subjects.LIMITS_SIZES}", self._heard
        )
        self._bus.on_reconnect(changed)
        await self.read()

    async def close(self) -> None:
        """Unsubscribe."""
        self._changed = lambda: None
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with contextlib.suppress(nats.errors.Error, OSError):  # the connection may be closed already
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
        raise PenstockError("the settings of limits changed too often during this request: try again")

    async def _heard(self, message: Msg) -> None:
        # A message may not be stored yet: it only triggers a read.
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
    """Encode a ledger: names of limits once, holders and waiters as short lists."""
    names: dict[str, int] = {}

    def number(name: str) -> int:
        return names.setdefault(name, len(names))

    body = {
        "form": _FORM,
        "holders": [
            [*h.slot_key, [number(name) for name in h.limits], h.since, h.asked, int(h.cancel_requested)]
            for h in ledger.holders.values()
        ],
        "waiters": [
            [*w.slot_key, [[number(n.name), n.most] for n in w.needs], w.priority, w.since, int(w.cancel_requested)]
            for w in ledger.waiters.values()
        ],
        "pending_notices": [[*slot_key, notice.value] for slot_key, notice in ledger.pending_notices],
        "outside": ledger.outside,
        "sent": ledger.sent,
        "newest": ledger.newest,
        "floor": ledger.floor,
        "sizes": ledger.settings,
        "whole": ledger.whole,
        "names": list(names),
    }
    return orjson.dumps(body)


def unpack(data: bytes) -> LimitsLedger:
    """Decode a ledger.

    Raises:
        UnreadableLimitsError: it has another format.
    """
    try:
        body: dict[str, Any] = orjson.loads(data)
        if body["form"] != _FORM:
            raise UnreadableLimitsError(
                f"the limits ledger has format {body['form']}, this version of Penstock reads format {_FORM}"
            )
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
            holders={holder.slot_key: holder for holder in holders},
            waiters={waiter.slot_key: waiter for waiter in waiters},
            pending_notices=dict.fromkeys(pending_notices),
            outside=body["outside"],
            sent=body["sent"],
            newest={str(name): tuple(times) for name, times in body["newest"].items()},
            floor=body["floor"],
            settings=body["sizes"],
            whole=body["whole"],
        )
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UnreadableLimitsError(f"the limits ledger is unreadable: {error!r}") from error
