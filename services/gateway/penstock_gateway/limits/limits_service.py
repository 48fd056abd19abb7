"""Limits as the API shows and sets them. The scheduler watches the sizes that are set here and grants slots by them."""

from __future__ import annotations

import time
from typing import Any

from penstock_adapters.nats.archived_log import ArchivedLog
from penstock_adapters.nats.buckets.limits import LimitSizes, LimitsStore
from penstock_adapters.nats.bus import Bus
from penstock_contracts import subjects
from penstock_contracts.limits import LimitList, LimitSummary, LimitView, SlotHolder, SlotWaiter
from penstock_core import ids
from penstock_core.access import DEFAULT_PROJECT
from penstock_core.errors import InvalidIdError
from penstock_core.facts import RunRequested
from penstock_core.limits import slot_ledger
from penstock_core.limits.overlap import DEPLOYMENT
from penstock_core.limits.slot_ledger import POOL, RUNS, LimitsLedger, SlotKey
from penstock_gateway.errors import NotFoundError, UnprocessableError

_ADVICE = {
    RUNS: "set the number of active runs in the pipeline: @pipeline(max_active_runs=…)",
    DEPLOYMENT: "set the number of active runs in the deployment: max_active_runs",
}
"""How to set a limit of active runs, by the prefix of its name."""


class LimitsService:
    """Reads the ledger and the sizes of the limits of one project, and changes the sizes. All projects share pools."""

    def __init__(self, bus: Bus, log: ArchivedLog, project: str) -> None:
        self._store = LimitsStore(bus)
        self._sizes = LimitSizes(bus)
        self._log = log
        self._project = project

    async def list(self) -> LimitList:
        """Return all limits that are set or in use."""
        ledger, sizes = await self._ledger(), await self._sizes.read()
        in_use, waiting = ledger.taken(), ledger.waiting()
        shown = {name: self._shown(name) for name in {*sizes, *in_use, *waiting}}
        return LimitList(
            limits=[
                LimitSummary(
                    name=text,
                    slots=sizes.get(name),
                    in_use=in_use[name],
                    waiting=waiting[name],
                    more_waiting=name in ledger.outside,
                )
                for name, text in sorted(shown.items(), key=lambda one: one[1] or "")
                if text is not None
            ]
        )

    async def get(self, name: str) -> LimitView:
        """Return a limit with the holders of its slots and the waiters.

        Raises:
            NotFoundError: it is neither set nor in use.
        """
        given, name = name, self._named(name)
        ledger, sizes, now = await self._ledger(), await self._sizes.read(), time.time()
        holders = [h for h in ledger.holders.values() if name in h.limits]
        waiters = [w for w in ledger.waiters.values() if any(need.name == name for need in w.needs)]
        if name not in sizes and not holders and not waiters:
            raise _no_limit(given)
        mine = await self._mine({one.slot_key[0] for one in (*holders, *waiters)}) if name.startswith(POOL) else None
        return LimitView(
            name=given,
            slots=sizes.get(name),
            in_use=len(holders),
            waiting=len(waiters),
            more_waiting=name in ledger.outside,
            holders=[
                SlotHolder(**_attempt(h.slot_key), since=h.since, cancel_requested=h.cancel_requested)
                for h in sorted(holders, key=lambda h: (h.since, h.slot_key))
                if mine is None or h.slot_key[0] in mine
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
                if mine is None or w.slot_key[0] in mine
            ],
        )

    async def set(self, name: str, slots: int) -> LimitView:
        """Set the number of slots of a limit. Attempts that hold slots keep them, even if there are fewer slots now.

        Raises:
            UnprocessableError: the name is not the name of a limit.
        """
        _check_name(name)
        await self._sizes.change(self._named(name), slots)
        return await self.get(name)

    async def unset(self, name: str) -> None:
        """Remove the number that was set for a limit; the numbers in the pipelines count from now on.

        Raises:
            NotFoundError: it was not set.
        """
        if not await self._sizes.change(self._named(name), None):
            raise _no_limit(name)

    def _named(self, name: str) -> str:
        """Return the name in the ledger of a limit of the project.

        Raises:
            NotFoundError: it belongs to another project.
        """
        if name.startswith(POOL):
            return name
        for prefix in _ADVICE:
            if name.startswith(prefix):
                if not name.startswith(f"{prefix}{self._project}/"):
                    raise _no_limit(name)
                return name
        return slot_ledger.named(self._project, name)

    def _shown(self, name: str) -> str | None:
        """Return the name by which the project knows a limit of the ledger; None for one of another project."""
        prefix = next((one for one in _ADVICE if name.startswith(one)), "")
        project, slash, rest = name.removeprefix(prefix).partition("/")
        if not slash:
            return name if name.startswith(POOL) or self._project == DEFAULT_PROJECT else None
        if project != self._project:
            return None
        return name if prefix else rest

    async def _mine(self, run_ids: set[str]) -> set[str]:
        """Return which of some runs belong to the project: those of others are counted, but not shown."""
        records = await self._log.last([subjects.run(run_id, "requested") for run_id in sorted(run_ids)])
        facts = [record.fact for record in records.values()]
        return {fact.run_id for fact in facts if isinstance(fact, RunRequested) and fact.project == self._project}

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
