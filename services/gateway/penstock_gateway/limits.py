"""Limits as the API shows and sets them. The scheduler hears of what is set here, and gives out slots by it."""

from __future__ import annotations

import re
import time
from typing import Any

from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.limits import BookStore, Sizes
from penstock_contracts.limits import LimitList, LimitPlace, LimitSummary, LimitView, LimitWaiter
from penstock_core import ids
from penstock_core.errors import InvalidId
from penstock_core.limits import POOL, Book, Place
from penstock_core.overlap import RUNS
from penstock_gateway.problems import ProblemError

_RUNS_OF = re.compile(rf"{RUNS}[^/]+/[^/]+\Z")


class LimitsDesk:
    """Reads the book and the settings, and changes the settings."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._store = BookStore(bus)

    async def list(self) -> LimitList:
        """All limits that are set or in use."""
        book, sizes = await self._book(), await self._sizes()
        held, waiting = book.taken(), book.waiting()
        names = sorted({*sizes, *held, *waiting})
        return LimitList(
            limits=[
                LimitSummary(
                    name=name,
                    slots=sizes.get(name),
                    held=held[name],
                    waiting=waiting[name],
                    more_waiting=name in book.outside,
                )
                for name in names
            ]
        )

    async def get(self, name: str) -> LimitView:
        """A limit with who holds and who waits.

        Raises:
            ProblemError: 404, it is neither set nor in use.
        """
        book, sizes, now = await self._book(), await self._sizes(), time.time()
        holders = [h for h in book.holders.values() if name in h.limits]
        waiters = [w for w in book.waiters.values() if any(need.name == name for need in w.needs)]
        if name not in sizes and not holders and not waiters:
            raise _no_limit(name)
        return LimitView(
            name=name,
            slots=sizes.get(name),
            held=len(holders),
            waiting=len(waiters),
            more_waiting=name in book.outside,
            holders=[
                LimitPlace(**_place(h.place), since=h.since, leaving=h.leaving)
                for h in sorted(holders, key=lambda h: (h.since, h.place))
            ],
            waiters=[
                LimitWaiter(
                    **_place(w.place),
                    since=w.since,
                    leaving=w.leaving,
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
        await Sizes(self._bus).change(name, slots)
        return await self.get(name)

    async def delete(self, name: str) -> None:
        """Remove what a limit was set to: steps say their own number from now on.

        Raises:
            ProblemError: 404, it was not set.
        """
        if not await Sizes(self._bus).change(name, None):
            raise _no_limit(name)

    async def _book(self) -> Book:
        book, _ = await self._store.read()
        return book if book is not None else Book()

    async def _sizes(self) -> dict[str, int]:
        return dict(await Sizes(self._bus).read())


def _check(name: str) -> None:
    try:
        ids.check_name(name.removeprefix(POOL), "limit")
    except InvalidId as error:
        advice = str(error)
        if _RUNS_OF.match(name):
            advice = "how many runs of a pipeline may be under way is said by itself: @pipeline(max_active_runs=…)"
        raise ProblemError(422, "The limit has no valid name", advice, errors=[("name", advice)]) from error


def _place(place: Place) -> dict[str, Any]:
    run_id, key, attempt = place
    return {"run_id": run_id, "step": key or None, "attempt": attempt or None}


def _no_limit(name: str) -> ProblemError:
    return ProblemError(404, f"There is no limit {name[:100]!r}", "see /v1/limits for those that there are")
