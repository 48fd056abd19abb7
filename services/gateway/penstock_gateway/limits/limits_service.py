"""Limits as the API shows and sets them. The scheduler watches the sizes that are set here and grants slots by them."""

from __future__ import annotations

import time
from typing import Any

from penstock_adapters.nats.buckets.limits import LimitSizes, LimitsStore
from penstock_adapters.nats.bus import Bus
from penstock_contracts.limits import LimitList, LimitSummary, LimitView, SlotHolder, SlotWaiter
from penstock_core import ids
from penstock_core.errors import InvalidIdError
from penstock_core.limits.overlap import DEPLOYMENT
from penstock_core.limits.slot_ledger import POOL, RUNS, LimitsLedger, SlotKey
from penstock_gateway.errors import NotFoundError, UnprocessableError

_ADVICE = {
    RUNS: "set the number of active runs in the pipeline: @pipeline(max_active_runs=…)",
    DEPLOYMENT: "set the number of active runs in the deployment: max_active_runs",
}
"""How to set a limit of active runs, by the prefix of its name."""


class LimitsService:
    """Reads the ledger and the sizes of limits, and changes the sizes."""

    def __init__(self, bus: Bus) -> None:
        self._store = LimitsStore(bus)
        self._sizes = LimitSizes(bus)

    async def list(self) -> LimitList:
        """Return all limits that are set or in use."""
        ledger, sizes = await self._ledger(), await self._sizes.read()
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
        """Return a limit with the holders of its slots and the waiters.

        Raises:
            NotFoundError: it is neither set nor in use.
        """
        ledger, sizes, now = await self._ledger(), await self._sizes.read(), time.time()
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
                SlotHolder(**_attempt(h.slot_key), since=h.since, cancel_requested=h.cancel_requested)
                for h in sorted(holders, key=lambda h: (h.since, h.slot_key))
            ],
            waiters=[
                SlotWaiter(
                    **_attempt(w.slot_key),
                    since=w.since,
                    cancel_requested=w.cancel_requested,
                    priority=w.priority,
                    effective=round(w.effective(now), 3),
                )
                for w in sorted(waiters, key=lambda w: w.rank)
            ],
        )

    async def set(self, name: str, slots: int) -> LimitView:
        """Set the number of slots of a limit. Attempts that hold slots keep them, even if there are fewer slots now.

        Raises:
            UnprocessableError: the name is not the name of a limit.
        """
        _check_name(name)
        await self._sizes.change(name, slots)
        return await self.get(name)

    async def unset(self, name: str) -> None:
        """Remove the number that was set for a limit; the numbers in the pipelines count from now on.

        Raises:
            NotFoundError: it was not set.
        """
        if not await self._sizes.change(name, None):
            raise _no_limit(name)

    async def _ledger(self) -> LimitsLedger:
        ledger, _ = await self._store.read()
        return ledger if ledger is not None else LimitsLedger()


def _check_name(name: str) -> None:
    try:
        ids.check_name(name.removeprefix(POOL), "limit")
    except InvalidIdError as error:
        advice = next((text for prefix, text in _ADVICE.items() if name.startswith(prefix)), str(error))
        raise UnprocessableError("The name of the limit is invalid", advice, errors=[("name", advice)]) from error


def _attempt(key: SlotKey) -> dict[str, Any]:
    run_id, step, attempt = key
    return {"run_id": run_id, "step": step or None, "attempt": attempt or None}


def _no_limit(name: str) -> NotFoundError:
    return NotFoundError(f"Limit {name[:100]!r} is neither set nor in use", "list limits with GET /v1/limits")
