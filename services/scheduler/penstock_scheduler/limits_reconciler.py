"""Reconciles the limits ledger with the log, whatever was lost between the two.

In: the facts of queued attempts and waiting runs, the configured limits as they change. Out: the ledger. At start, from
time to time, and when there is room for waiters outside, the ledger is compared with the log: finished attempts and
runs are released; queued ones that are missing are added, with their slots if the log says that they have them. So the
ledger can be lost altogether and is rebuilt. The log is read from the sequence before which everything has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from penstock_adapters.nats.buckets.limits import LimitSizes, LimitsStore
from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.run_log import NatsRunLog, from_direct
from penstock_contracts import subjects
from penstock_contracts.ports import VersionReader
from penstock_core.errors import PenstockError
from penstock_core.facts import AttemptFinished, AttemptQueued, RunRequested
from penstock_core.limits import overlap, slot_ledger
from penstock_core.limits.slot_ledger import LimitsLedger, SlotKey
from penstock_core.ports import Recorded
from penstock_scheduler import limits as handling
from penstock_scheduler.limits import Limits, SlotRequest

_PAUSE = 1.0
"""Seconds until a requested comparison, so that many waiters outside do not cause one after the other."""

_FLOOR_STEP = 1000
"""The floor is raised in steps, so that the ledger is not written for it alone all the time."""


@dataclass(slots=True)
class _Found:
    """What the log says of keys: which have ended without a process left, which have slots, which exist."""

    finished: set[SlotKey] = field(default_factory=set[SlotKey])
    granted: set[SlotKey] = field(default_factory=set[SlotKey])
    known: set[SlotKey] = field(default_factory=set[SlotKey])


class LimitsReconciler:
    """Compares the ledger with the log. `run` is its loop."""

    def __init__(
        self, bus: Bus, handler: Limits, store: LimitsStore, sizes: LimitSizes, versions: VersionReader, every: float
    ) -> None:
        self._bus = bus
        self._log = NatsRunLog(bus, "penstock/scheduler/limits")
        self._handler = handler
        self._store = store
        self._sizes = sizes
        self._versions = versions
        self._every = every
        self._wake = asyncio.Event()
        self._resized = False
        self._open: dict[SlotKey, tuple[int, AttemptQueued]] = {}
        self._read_to = 0
        self._suspects: set[SlotKey] = set()
        self._soon: asyncio.TimerHandle | None = None
        handler.needs_comparison = self._short

    async def start(self) -> None:
        """Read the configured limits, and subscribe to their changes."""
        await self._sizes.watch(self._changed)

    async def close(self) -> None:
        """Unsubscribe."""
        if self._soon is not None:
            self._soon.cancel()
        await self._sizes.close()

    async def run(self, warn: Callable[..., None], clock: Callable[[], float]) -> None:
        """Compare now, from time to time, and on request, until cancelled."""
        while True:
            resized, self._resized = self._resized, False
            self._wake.clear()
            wait = self._every
            try:
                if resized:
                    await self._sizes.read()
                    await self._handler.change(lambda ledger: None)
                else:
                    await self.compare(clock())
            except PenstockError as error:
                warn("limits will be compared with the log again", error=str(error))
                self._resized, wait = self._resized or resized, _PAUSE
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()

    def _changed(self) -> None:
        self._resized = True
        self._wake.set()

    def _short(self) -> None:
        if self._soon is None or self._soon.when() < asyncio.get_running_loop().time():
            self._soon = asyncio.get_running_loop().call_later(_PAUSE, self._wake.set)

    async def compare(self, now: float) -> None:
        """Make the ledger agree with the log."""
        ledger, _ = await self._store.read()
        seen = ledger if ledger is not None else LimitsLedger()
        rebuilding = not seen.whole
        runs = await self._runs_outside(seen, rebuilding, now)
        await self._read_held(seen)
        slot_keys = {*seen.holders, *seen.waiters, *self._open, *runs}
        found = await self._look_up(slot_keys)
        for slot_key in found.finished:
            self._open.pop(slot_key, None)
        suspects = {
            slot_key for slot_key in slot_keys if slot_key not in found.known and slot_key not in found.finished
        }
        gone = suspects & self._suspects  # a lagging replica of the log may lack it: not at the first comparison
        self._suspects = suspects - gone
        for slot_key in gone:
            self._open.pop(slot_key, None)
        waiting = {
            slot_key: SlotRequest(handling.waiter_of(queued, now)) for slot_key, (_, queued) in self._open.items()
        }
        missing = [
            request
            for slot_key, request in (waiting | runs).items()
            if slot_key in found.known
            and not (slot_key in found.finished or slot_key in seen.holders or slot_key in seen.waiters)
        ]
        # First those that have slots, then the others in the order of their requests: overlap policies need both.
        missing.sort(key=lambda request: (request.waiter.slot_key not in found.granted, request.waiter.since))
        floor = min((seq for seq, _ in self._open.values()), default=self._read_to + 1) - 1

        def amend(ledger: LimitsLedger) -> None:
            for slot_key in found.finished | gone:
                slot_ledger.release(ledger, slot_key)
            for name, sent in seen.outside.items():
                if ledger.outside.get(name) == sent:  # all waiters outside are among the missing
                    del ledger.outside[name]
            for request in missing:
                if request.waiter.slot_key in found.granted:
                    slot_ledger.hold(ledger, request.waiter, now)
                elif request.policies:
                    overlap.restore(ledger, request.waiter, request.policies)
                else:
                    slot_ledger.enqueue(ledger, request.waiter)
            if rebuilding or floor > ledger.floor + _FLOOR_STEP:
                ledger.floor = max(ledger.floor, floor)
            ledger.whole = True

        await self._handler.change(amend)

    async def _read_held(self, seen: LimitsLedger) -> None:
        """Record the attempts that were queued since the last comparison."""
        after = max(self._read_to, seen.floor)
        for message in await self._bus.read(subjects.RUNS, subjects.queued_attempts(), after):
            after = max(after, int((message.headers or {})["Nats-Sequence"]))
            recorded = from_direct(message)
            if recorded is not None and isinstance(fact := recorded.fact, AttemptQueued):
                self._open[fact.run_id, fact.key, fact.attempt] = (recorded.seq, fact)
        self._read_to = after

    async def _runs_outside(self, seen: LimitsLedger, rebuilding: bool, now: float) -> dict[SlotKey, SlotRequest]:
        """Return the runs that wait outside, or all unfinished ones when the ledger is rebuilt."""
        wanted = {name for name in seen.outside if name.startswith((slot_ledger.RUNS, overlap.DEPLOYMENT))}
        if not wanted and not rebuilding:
            return {}
        found: dict[SlotKey, SlotRequest] = {}
        for message in await self._bus.read(subjects.RUNS, subjects.requested_runs()):
            recorded = from_direct(message)
            if recorded is None or not isinstance(fact := recorded.fact, RunRequested):
                continue
            version = await self._versions.get(fact.project, fact.pipeline, fact.version)
            ask = handling.admission_request(fact, version.pipeline, now) if version is not None else None
            if ask is not None and (rebuilding or any(need.name in wanted for need in ask.waiter.needs)):
                found[ask.waiter.slot_key] = ask
        return found

    async def _look_up(self, slot_keys: Iterable[SlotKey]) -> _Found:
        spots: dict[str, tuple[SlotKey, set[SlotKey]]] = {}
        found = _Found()
        may_run, stopped = set[SlotKey](), set[SlotKey]()
        for slot_key in slot_keys:
            run_id, key, attempt = slot_key
            first, granted = ("requested", "admitted")
            if key:
                prefix = f"step.{key}.{attempt}"
                first, granted = (f"{prefix}.queued", f"{prefix}.granted")
                spots[subjects.finished(run_id, key, attempt)] = (slot_key, found.finished)
                spots[subjects.run(run_id, f"{prefix}.started")] = (slot_key, may_run)
                spots[subjects.run(run_id, f"{prefix}.stopped")] = (slot_key, stopped)
            else:
                spots[subjects.run(run_id, "finished")] = (slot_key, found.finished)
            spots[subjects.run(run_id, first)] = (slot_key, found.known)
            spots[subjects.run(run_id, granted)] = (slot_key, found.granted)
        there: dict[str, Recorded] = await self._log.last(list(spots))
        for subject, recorded in there.items():
            slot_key, group = spots[subject]
            group.add(slot_key)
            if isinstance(recorded.fact, AttemptFinished) and recorded.fact.executor:
                stopped.add(slot_key)  # its executor records its end when no process is left
        found.finished -= may_run - stopped
        return found
