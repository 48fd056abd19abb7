"""Limits as the API shows and sets them. The scheduler hears of what is set here, and gives out slots by it."""

from __future__ import annotations

import re
import time
from typing import Any

from penstock_adapters.nats.buckets.limits import LimitSizes, LimitsStore
from penstock_adapters.nats.bus import Bus
from penstock_contracts.limits import LimitList, LimitSummary, LimitView, SlotHolder, SlotWaiter
from penstock_core import ids
from penstock_core.errors import InvalidIdError
from penstock_core.limits.overlap import RUNS
from penstock_core.limits.slot_ledger import POOL, LimitsLedger, SlotKey
from penstock_gateway.http.problems import ProblemError

_RUNS_OF = re.compile(rf"{RUNS}[^/]+/[^/]+\Z")


class LimitsService:
    """Reads the book and the settings, and changes the settings."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._store = LimitsStore(bus)

    async def list(self) -> LimitList:
        """All limits that are set or in use."""
        ledger, sizes = await self._book(), await self._sizes()
        in_use, waiting = ledger.taken(), ledger.waiting()
        names = sorted({*sizes, *in_use, *waiting})
        return LimitList(
            limits=[
                LimitSummary(
                    name=name,
                    slots=sizes.get(name),
                    in_use=in_use[name],
                    waiting=waiting[name],
                    more_waiting=name in ledger.outside,
                )
                for name in names
            ]
        )

    async def get(self, name: str) -> LimitView:
        """A limit with who holds and who waits.

        Raises:
            ProblemError: 404, it is neither set nor in use.
        """
        ledger, sizes, now = await self._book(), await self._sizes(), time.time()
        holders = [h for h in ledger.holders.values() if name in h.limits]
        waiters = [w for w in ledger.waiters.values() if any(need.name == name for need in w.needs)]
        if name not in sizes and not holders and not waiters:
            raise _no_limit(name)
        return LimitView(
            name=name,
            slots=sizes.get(name),
            in_use=len(holders),
            waiting=len(waiters),
            more_waiting=name in ledger.outside,
            holders=[
                SlotHolder(**_place(h.place), since=h.since, cancel_requested=h.cancel_requested)
                for h in sorted(holders, key=lambda h: (h.since, h.place))
            ],
            waiters=[
                SlotWaiter(
                    **_place(w.place),
                    since=w.since,
                    cancel_requested=w.cancel_requested,
                    priority=w.priority,
                    effective=round(w.effective(now), 3),
                )
                for w in sorted(waiters, key=lambda w: w.rank)
            ],
        )

    async def put(self, name: str, slots: int) -> LimitView:
        """Set a limit. Those who hold slots keep them, however few there are now.

        Raises:
            ProblemError: 422, the name may not name a limit.
        """
        _check(name)
        await LimitSizes(self._bus).change(name, slots)
        return await self.get(name)

    async def delete(self, name: str) -> None:
        """Remove what a limit was set to: steps say their own number from now on.

        Raises:
            ProblemError: 404, it was not set.
        """
        if not await LimitSizes(self._bus).change(name, None):
            raise _no_limit(name)

    async def _book(self) -> LimitsLedger:
        ledger, _ = await self._store.read()
        return ledger if ledger is not None else LimitsLedger()

    async def _sizes(self) -> dict[str, int]:
        return dict(await LimitSizes(self._bus).read())


def _check(name: str) -> None:
    try:
        ids.check_name(name.removeprefix(POOL), "limit")
    except InvalidIdError as error:
        advice = str(error)
        if _RUNS_OF.match(name):
            advice = "how many runs of a pipeline may be under way is said by itself: @pipeline(max_active_runs=…)"
        raise ProblemError(422, "The limit has no valid name", advice, errors=[("name", advice)]) from error


def _place(place: SlotKey) -> dict[str, Any]:
    run_id, key, attempt = place
    return {"run_id": run_id, "step": key or None, "attempt": attempt or None}


def _no_limit(name: str) -> ProblemError:
    return ProblemError(404, f"There is no limit {name[:100]!r}", "see /v1/limits for those that there are")
