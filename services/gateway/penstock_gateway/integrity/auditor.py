"""Notices damaged streams, and has the log of runs repaired.

In: the positions of all streams, every few seconds and after each restart of the broker; all messages of all streams,
once after the start and once a day. Out: the record of damages, log messages, and the repair of the log of runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial

from penstock_adapters.nats.bootstrap import redeliver, streams
from penstock_adapters.nats.buckets.integrity import IntegrityStore
from penstock_adapters.nats.follower import Followers, StreamMessage
from penstock_adapters.nats.stream_check import positions, unreadable, with_dropped
from penstock_contracts import subjects
from penstock_core import ids, integrity
from penstock_core.errors import PenstockError
from penstock_core.integrity import Damage, IntegrityRecord, StreamPosition
from penstock_gateway.integrity.run_repair import RunRepair
from penstock_gateway.read_model.database import ReadModel
from penstock_servicekit.service_context import ServiceContext

_INTERVAL = 2.0
_CONFIRM = 1.0
_READ_AFTER = 20.0
_READ_EVERY = 86400.0
_END = 2**62
_READ_PAUSE = 4.0
"""How long the reading of streams in the background pauses, in reading times."""

_LOOKUPS = 200
"""How many messages are looked up at the same time."""

_LIMITS_STREAM = f"KV_{subjects.LIMITS_BUCKET}"


class Auditor:
    """Compares streams with the record of them while it runs.

    Args:
        context: of the service.
        followers: to read streams.
        model: the read model, which has a copy of the log of runs.
        repair: restores runs from that copy.
        reread: has the read model follow the log from its beginning.
        checked: set after the first comparison.
    """

    def __init__(
        self,
        context: ServiceContext,
        followers: Followers,
        model: ReadModel,
        repair: RunRepair,
        reread: Callable[[], Awaitable[None]],
        checked: asyncio.Event,
    ) -> None:
        self._context = context
        self._bus = context.bus
        self._followers = followers
        self._model = model
        self._repair = repair
        self._reread = reread
        self._store = IntegrityStore(context.bus)
        self._names = [name for one in streams() if (name := str(one["name"])) not in subjects.EXPENDABLE]
        self._tasks: list[asyncio.Task[None]] = []
        self._server = ""
        self._verification: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._lock = asyncio.Lock()
        self._comparing = asyncio.Lock()
        self._repairs = False
        self._unhandled: set[str] = set()
        self._runs_shrank = False
        self._recorded_last: int | None = None
        self._last: IntegrityRecord | None = None
        self._checked = checked

    async def start(self) -> None:
        """Start to compare."""
        self._bus.on_reconnect(self._wake.set)
        self._tasks = [self._context.task(self._watch()), self._context.task(self._read_daily())]

    async def close(self) -> None:
        """Record the last positions."""
        for task in [*self._tasks, *([self._verification] if self._verification else [])]:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._checked.is_set() and self._bus.client.is_connected:
            with contextlib.suppress(PenstockError):
                await self._compare()

    def damages(self) -> tuple[Damage, ...]:
        """Return the damages that are neither repaired nor accepted, as of the last comparison."""
        return self._last.open if self._last else ()

    def is_repairing(self) -> bool:
        """Return whether the log of runs is being repaired."""
        return self._repairs

    async def record(self) -> IntegrityRecord:
        """Return the record. Raises UnavailableError."""
        return await self._store.read()

    async def accept(self) -> IntegrityRecord:
        """Accept all damages that could not be repaired."""
        self._last = await self._store.change(integrity.accept)
        return self._last

    def start_verification(self) -> None:
        """Start to verify all streams, unless that is in progress."""
        if not self.is_verifying():
            self._verification = self._context.task(self._verify_once())

    def is_verifying(self) -> bool:
        """Return whether a verification that was requested is in progress."""
        return self._verification is not None and not self._verification.done()

    async def _verify_once(self) -> None:
        while True:
            try:
                await self.verify()
                return
            except PenstockError as error:
                self._context.log.warning("verification of streams is repeated", error=str(error))
                await asyncio.sleep(_CONFIRM)

    async def verify(self, pause: float = 0.0) -> IntegrityRecord:
        """Read all streams, repair the log of runs, and return the record.

        Raises:
            UnavailableError: the broker does not answer.
        """
        await self._checked.wait()
        await self._compare()  # so that a loss is recorded once, as what it is
        async with self._lock:
            for name in self._names:
                lost: list[int] = []
                if name == subjects.RUNS:
                    await self._check_runs(pause)
                else:
                    lost = await unreadable(self._bus, self._followers, name, pause=pause)
                await self._add([self._missing(name, lost)] if lost else [])
            self._last = await self._store.read()
            return self._last

    async def _watch(self) -> None:
        while True:
            try:
                await self._compare()
                left = not self._checked.is_set() and any(one.stream == subjects.RUNS for one in self.damages())
                self._checked.set()
                if self._recorded_last is not None:
                    self._runs_shrank |= await self._lacks_latest(self._recorded_last)
                    self._recorded_last = None
                if self._repairs or subjects.RUNS in self._unhandled or left or self._runs_shrank:
                    self._repairs = True
                    async with self._lock:
                        await self._check_runs(0.0)
                    self._repairs = self._runs_shrank = False
                await self._refill()
            except PenstockError as error:
                if self._repairs:
                    self._context.log.warning("repair of the log postponed", error=str(error))
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_INTERVAL if self._checked.is_set() else _CONFIRM):
                    await self._wake.wait()

    async def _read_daily(self) -> None:
        await asyncio.sleep(_READ_AFTER)
        while True:
            try:
                await self.verify(_READ_PAUSE)
                await asyncio.sleep(_READ_EVERY)
            except PenstockError as error:
                self._context.log.warning("streams could not be read completely", error=str(error))
                await asyncio.sleep(_READ_AFTER)

    async def _compare(self) -> None:
        """Compare the positions with the recorded ones, and record them and new damages."""
        async with self._comparing:
            await self._compare_once()

    async def _compare_once(self) -> None:
        record = await self._store.read()  # before the positions, so that these are never the older ones
        now = await self._positions(record)
        without_last = await self._without_last(record, now)
        # Timers and waits also end: those streams are filled again as a precaution.
        self._unhandled |= without_last & {*subjects.FROM_LOG}
        without_last -= {*subjects.FROM_LOG}
        found = integrity.compare(record, now, time.time(), subjects.APPEND_ONLY, without_last)
        if found:  # a leader that was just elected may not know all of its stream yet
            await asyncio.sleep(_CONFIRM)
            now = await self._positions(record)
            found = integrity.compare(record, now, found[0].found_at, subjects.APPEND_ONLY, without_last)
        if self._server != self._bus.server_id and subjects.RUNS in record.positions and subjects.RUNS in now:
            # Also runs that were archived just before: the copy tells.
            self._runs_shrank = now[subjects.RUNS].messages < record.positions[subjects.RUNS].messages
            self._recorded_last = record.positions[subjects.RUNS].last_seq
        self._server = self._bus.server_id
        self._unhandled |= {damage.stream for damage in found}
        if record.positions != now or record.server != self._server or found:
            await self._add(found, now)
        else:
            self._last = record

    async def _refill(self) -> None:
        """Have streams filled again whose contents follow from the log; note what schedulers have filled again."""
        for stream in sorted(self._unhandled | {damage.stream for damage in self.damages()}):
            lost = sum(damage.lost - damage.restored for damage in self.damages() if damage.stream == stream)
            if stream in subjects.FROM_LOG:
                for shard in range(ids.SHARDS):
                    await redeliver(self._bus, subjects.RUNS, subjects.scheduler_consumer(shard))
                await redeliver(self._bus, subjects.EVENTS, subjects.TRIGGERS_CONSUMER)
            elif stream != _LIMITS_STREAM or not await self._has_messages(stream, lost):
                continue
            self._last = await self._store.change(partial(integrity.repaired, stream=stream, restored=lost, notes=()))
            self._context.log.warning("stream filled again from the log of runs", stream=stream)
        self._unhandled &= {subjects.RUNS}

    async def _has_messages(self, stream: str, count: int) -> bool:
        found = await positions(self._bus, [stream])
        return stream in found and found[stream].messages >= count

    async def _without_last(self, record: IntegrityRecord, now: dict[str, StreamPosition]) -> set[str]:
        """Return the streams that have fewer messages since the broker was restarted, and lack the last recorded one.

        Messages may have been deleted meanwhile, such as the output of a run, but seldom the newest. The log of runs
        has a copy, which shows that better.
        """
        known = {name: one for name, one in record.positions.items() if name in now and name != subjects.RUNS}
        if record.server in ("", self._bus.server_id):
            return set()
        fewer = [name for name, one in known.items() if now[name].messages < one.messages]
        return {name for name in fewer if not await self._bus.holds(name, known[name].last_seq)}

    async def _positions(self, record: IntegrityRecord) -> dict[str, StreamPosition]:
        now = await positions(self._bus, self._names)
        if self._server != self._bus.server_id:
            return await with_dropped(self._bus, now)
        known = record.positions  # a server drops messages only when it starts
        return {name: replace(one, dropped=known[name].dropped if name in known else "") for name, one in now.items()}

    async def _add(self, damages: list[Damage], now: dict[str, StreamPosition] | None = None) -> None:
        known = {damage.id for damage in (await self._store.read()).damages}
        for damage in damages:
            if damage.id not in known:
                self._context.log.error("stream damaged", stream=damage.stream, damage=integrity.describe(damage))
        self._last = await self._store.change(
            lambda record: integrity.update(
                record, record.positions if now is None else now, damages, self._server or record.server
            )
        )

    async def _check_runs(self, pause: float) -> None:
        """Compare the log of runs with its copy, and repair it."""
        must_repair = subjects.RUNS in self._unhandled
        state = (await self._bus.api(f"STREAM.INFO.{subjects.RUNS}"))["state"]
        first, last = int(state["first_seq"]), int(state["last_seq"])
        on_page = partial(self._compare_page, last)
        lost = await unreadable(self._bus, self._followers, subjects.RUNS, on_page, pause)
        await self._compare_page(last, 0, first - 1, ())
        await self._compare_page(last, last, _END, ())
        damaged = await self._model.read(lambda model: model.damaged_runs())
        await self._add([self._missing(subjects.RUNS, lost)] if lost else [])
        if damaged and not any(damage.stream == subjects.RUNS for damage in self.damages()):
            count = sum(run.lost for run in damaged)
            id = f"{subjects.RUNS}:incomplete:{damaged[0].run_id}:{count}"
            await self._add([Damage(id, subjects.RUNS, "incomplete", time.time(), count)])
        if not (damaged or must_repair):
            return
        self._context.log.warning("repairing the log of runs", runs=len(damaged))
        report = await self._repair.repair(resume=must_repair)
        self._last = await self._store.change(
            lambda record: integrity.repaired(record, subjects.RUNS, report.restored, report.notes)
        )
        self._unhandled.discard(subjects.RUNS)
        await self._reread()
        missing = [integrity.describe(damage) for damage in self.damages()]
        self._context.log.warning(
            "log of runs repaired", restored=report.restored, notes=list(report.notes), missing=missing
        )

    async def _lacks_latest(self, recorded: int) -> bool:
        """Return whether the log lacks copied facts above its last recorded sequence, which is a few seconds old."""
        last = int((await self._bus.api(f"STREAM.INFO.{subjects.RUNS}"))["state"]["last_seq"])
        await self._compare_page(last, recorded, _END, ())
        return bool(await self._model.read(lambda model: model.damaged_runs()))

    async def _compare_page(self, last: int, after: int, upto: int, items: Sequence[StreamMessage]) -> None:
        """Mark the copied facts between two sequences that the log lacks as lost."""
        stored = {(item.seq, item.subject) for item in items}
        copied = await self._model.read(lambda model: model.copied_between(after, upto))
        candidates = [subject for seq, subject in copied if (seq, subject) not in stored]
        for start in range(0, len(candidates), _LOOKUPS):
            part = candidates[start : start + _LOOKUPS]
            found = await asyncio.gather(*(self._bus.last(subjects.RUNS, subject) for subject in part))
            missing = [subject for subject, message in zip(part, found, strict=True) if message is None]
            if missing:
                await self._model.write(lambda model, missing=missing: model.mark_lost(missing, last))

    def _missing(self, stream: str, lost: list[int]) -> Damage:
        id = f"{stream}:unreadable:{lost[0]}-{lost[-1]}:{len(lost)}"
        return Damage(id, stream, "unreadable", time.time(), len(lost))
