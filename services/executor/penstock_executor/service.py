"""The executor: takes attempts from its pool, has them run in processes, and reports their ends.

In: deliveries of `attempt.requested`, only as many as there are free slots, and `ahead` of them, which wait in line for
a slot in the order of their priorities. Out: `started`, `finished`, output.

Promises: a delivery is acknowledged only after the attempt's end is in the log. A redelivered attempt whose start is
in the log is reported `lost`, so that the scheduler decides on the next one; one that never started simply runs. The
broker keeps the first end, so whatever a second executor still reports is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from penstock_adapters.nats.consumer import Delivery
from penstock_adapters.nats.results import resolve_inputs
from penstock_contracts import fact_codec, subjects
from penstock_core import script_runs
from penstock_core.errors import PenstockError
from penstock_core.facts import ArtifactCommitted, AttemptFinished, AttemptRequested, AttemptStarted, Outcome
from penstock_core.ports import Executor, UnavailableError
from penstock_core.queries.series import Point
from penstock_executor import attempt_facts
from penstock_executor.active_attempt import ActiveAttempt, finalize_end
from penstock_executor.background_tasks import BackgroundTasks
from penstock_executor.platform import Attempt, Platform
from penstock_executor.slot_queue import SlotQueue

STARTED_DELAY = 0.02
"""Seconds that a `started` fact waits: an attempt that ends before does without."""

_REMEMBERED = 10_000
_CANCELLED_REMEMBERED = 100_000
_REFUSED_DELAY = 10.0


class ExecutorService:
    """Holds the attempts of one process; implements `AttemptEvents` for its `Executor`."""

    def __init__(
        self,
        name: str,
        slots: int,
        platform: Platform,
        want: Callable[[int], None],
        warn: Callable[..., None],
        *,
        ahead: int = 0,
    ) -> None:
        self.name = name
        self._slots = slots
        self._ahead = ahead
        self._slot_queue = SlotQueue(self._too_late)
        self._queued: set[Attempt] = set()
        self._platform = platform
        self._want = want
        self._warn = warn
        self._executor: Executor | None = None
        self._active_attempts: dict[Attempt, ActiveAttempt] = {}
        self._ended: OrderedDict[Attempt, None] = OrderedDict()
        self._cancelled: OrderedDict[str, None] = OrderedDict()
        self._background = BackgroundTasks(warn)
        self._stopping = False
        self._active = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.horizon = 0
        """Log sequence below which a first delivery may still be a second one: the server may have lost its count."""

    def use(self, executor: Executor) -> None:
        """The executor that runs what this service takes."""
        self._executor = executor

    def open(self) -> None:
        """Begin to take attempts."""
        self._want_free()

    # ------------------------------------------------------------------------------------------------ deliveries

    def receive(self, delivery: Delivery) -> None:
        """Take a delivery, and ask for others as far as slots are free: also for one that brought nothing to do."""
        self._take(delivery)
        self._want_free()

    def _take(self, delivery: Delivery) -> None:
        request = fact_codec.decode(delivery.subject, delivery.data)
        if isinstance(request, fact_codec.UnreadableFact):
            self._background.spawn(self._corrupt(delivery, request))
            return
        if not isinstance(request, AttemptRequested) or request.version == script_runs.VERSION:
            self._background.spawn(self._platform.ack(delivery))
            return
        attempt = (request.run_id, request.key, request.attempt)
        active = self._active_attempts.get(attempt)
        if active is not None:
            active.delivery = delivery  # a redelivery of what runs here; the newest one is acknowledged
            return
        if attempt in self._ended:
            self._background.spawn(self._platform.ack(delivery))
            return
        if self._stopping:
            self._background.spawn(self._platform.return_delivery(delivery, 0.0))
            return
        self._active_attempts[attempt] = ActiveAttempt(request, delivery)
        self._idle.clear()
        if self._active < self._slots or not self._ahead:
            self._start(attempt)
            return
        self._queued.add(attempt)
        self._background.spawn(self._begin(attempt, request, delivery))

    def _start(self, attempt: Attempt) -> None:
        """Give an attempt a slot."""
        active = self._active_attempts[attempt]
        active.begun = True
        self._active += 1
        self._queued.discard(attempt)
        self._background.spawn(self._begin(attempt, active.request, active.delivery))

    async def _begin(self, attempt: Attempt, request: AttemptRequested, delivery: Delivery) -> None:
        """Start an attempt, or have it wait for a slot if it has none."""
        try:
            if self._was_cancelled(request):
                return
            if request.not_before is not None and (delay := request.not_before - time.time()) > 0:
                self._release(attempt)
                await self._platform.return_delivery(delivery, delay)
                return
            if (delivery.delivered > 1 or delivery.stream_seq <= self.horizon) and await self._known(request):
                return
            if request.start_by is not None and time.time() >= request.start_by:
                self._end(attempt_facts.queue_timeout(request))
                return
            active = self._active_attempts.get(attempt)
            if active is None or active.ended:
                return
            if not active.begun:
                await self._enqueue(attempt, request, delivery)
                return
            request = await resolve_inputs(request, self._platform.facts)
            if await self._from_cache(attempt, request):
                return
            where = await self._platform.workplace(request)
            # A cancel that came meanwhile found no process to end. Between this look and the start nothing is awaited.
            if self._was_cancelled(request):
                return
            assert self._executor is not None  # noqa: S101 - set by the composition root before open()
            await self._executor.start(request, where)
        except UnavailableError as error:
            self._warn("an attempt is handed back", attempt="/".join(map(str, attempt)), error=str(error))
            self._release(attempt)
            await self._platform.return_delivery(delivery, 1.0)
        except PenstockError as error:
            self._end(attempt_facts.bad_end(request, Outcome.FAILED, type(error).__name__, str(error)))
        except Exception as error:
            self._warn("an attempt could not be started", attempt="/".join(map(str, attempt)), error=repr(error))
            message = f"the executor could not start it: {error}"
            self._end(attempt_facts.bad_end(request, Outcome.LOST, type(error).__name__, message))

    async def _enqueue(self, attempt: Attempt, request: AttemptRequested, delivery: Delivery) -> None:
        if self._stopping:  # it starts elsewhere, or here later
            self._release(attempt)
            await self._platform.return_delivery(delivery, 0.0)
        else:
            self._slot_queue.join(request, delivery.at)
            self._want_free()

    def _too_late(self, attempt: Attempt) -> None:
        """It has been in line for as long as it may."""
        active = self._active_attempts.get(attempt)
        if active is not None and not active.begun:
            self._end(attempt_facts.queue_timeout(active.request))

    async def _from_cache(self, attempt: Attempt, request: AttemptRequested) -> bool:
        """End an attempt with an earlier result of the same call; True when there was one."""
        if request.cache is None:
            return False
        found = await self._platform.look_up(request, request.cache)
        active = self._active_attempts.get(attempt)
        if active is not None:
            active.cache = found.report
        if found.end is None:
            return False
        if not self._was_cancelled(request):
            self._end(found.end)
        return True

    def _was_cancelled(self, request: AttemptRequested) -> bool:
        """End an attempt whose run was cancelled, or that was to be killed; True when it was."""
        active = self._active_attempts.get((request.run_id, request.key, request.attempt))
        if (active is None or not active.killed) and (request.run_id not in self._cancelled or request.closing):
            return False
        self._end(
            attempt_facts.bad_end(request, Outcome.CANCELLED, "Cancelled", "the run was cancelled before it started")
        )
        return True

    async def _known(self, request: AttemptRequested) -> bool:
        """Deal with an attempt that was delivered before; True when it must not run."""
        prefix = subjects.run(request.run_id, f"step.{request.key}.{request.attempt}")
        known = await self._platform.facts([f"{prefix}.started", f"{prefix}.finished"])
        if f"{prefix}.finished" in known:
            self._done((request.run_id, request.key, request.attempt))
            return True
        started = known.get(f"{prefix}.started")
        if started is not None and isinstance(started.fact, AttemptStarted):
            message = f"the executor {started.fact.executor} that ran it is gone"
            self._end(attempt_facts.bad_end(request, Outcome.LOST, "Lost", message, started.fact.started_at))
            return True
        return False

    async def _corrupt(self, delivery: Delivery, corrupt: fact_codec.UnreadableFact) -> None:
        """An unreadable request still takes its place in the log; its attempt ends as lost, so another is requested."""
        await self._platform.park(delivery, corrupt.why)
        place = subjects.parse(corrupt.subject)
        if place is not None and place.key and place.attempt:
            await self._platform.submit(
                attempt_facts.unreadable(place.run_id, place.key, place.attempt, corrupt.why, self.name)
            )
        await self._platform.ack(delivery)

    # ------------------------------------------------------------------------------------------- AttemptEvents

    def started(self, fact: AttemptStarted) -> None:
        """The attempt's process runs. Its fact waits a moment for the end, which says the same and more."""
        active = self._active_attempts.get((fact.run_id, fact.key, fact.attempt))
        if active is not None:
            active.started = fact
            active.timer = asyncio.get_running_loop().call_later(STARTED_DELAY, self._send_started, active)

    def output(self, run_id: str, key: str, attempt: int, entries: list[dict[str, Any]]) -> None:
        """The attempt wrote something."""
        active = self._active_attempts.get((run_id, key, attempt))
        shipped = self._platform.output((run_id, key, attempt), entries)
        if active is not None:
            active.output.append(shipped)

    def measured(self, run_id: str, key: str, attempt: int, points: list[Point]) -> None:
        """The attempt measured something."""
        active = self._active_attempts.get((run_id, key, attempt))
        shipped = self._platform.measured((run_id, key, attempt), points)
        if active is not None:
            active.output.append(shipped)

    def committed(self, fact: ArtifactCommitted) -> None:
        """The attempt stored something."""
        active = self._active_attempts.get((fact.run_id, fact.key, fact.attempt))
        if active is not None:
            active.commits = True
            self._platform.commit(fact)

    def finished(self, fact: AttemptFinished) -> None:
        """The attempt ended."""
        self._end(fact)

    # ----------------------------------------------------------------------------------------------------- ends

    def _end(self, fact: AttemptFinished) -> None:
        """Report an end. Without output or artifacts, which is the fast path, it is submitted at once."""
        fact = fact if fact.executor else replace(fact, executor=self.name)
        attempt = (fact.run_id, fact.key, fact.attempt)
        active = self._active_attempts.get(attempt)
        if active is not None:
            if active.ended:
                return
            # The slot is free now; the delivery is held until the end is in the log.
            active.ended = True
            self._free(attempt, active)
            if active.timer is not None:
                # A short attempt has no `started` in the log: its end says where and when it began, for one write less.
                active.timer.cancel()
            if active.output or active.commits or active.cache or attempt_facts.stores(fact):
                self._background.spawn(self._end_after(attempt, active, fact))
                return
        self._submit_end(attempt, fact)

    async def _end_after(self, attempt: Attempt, active: ActiveAttempt, fact: AttemptFinished) -> None:
        """What a finished attempt wrote is stored before its end is known, so that readers find it."""
        self._submit_end(attempt, await finalize_end(self._platform, active, fact))

    def _submit_end(self, attempt: Attempt, fact: AttemptFinished) -> None:
        written = self._platform.submit(fact)
        written.add_done_callback(lambda future: self._background.spawn(self._ended_in_log(attempt, fact, future)))

    async def _ended_in_log(self, attempt: Attempt, fact: AttemptFinished, written: asyncio.Future[bool]) -> None:
        if written.cancelled():
            return
        error = written.exception()
        if error is not None:
            # Refused for good, such as a body over the broker's limit: report that instead.
            self._warn("an end was refused", attempt="/".join(map(str, attempt)), error=str(error))
            try:
                await self._platform.submit(attempt_facts.too_large(fact, error))
            except PenstockError as again:
                # Nothing can be recorded now. It comes again later, and counts as lost if its start is in the log.
                self._warn("no end could be recorded", attempt="/".join(map(str, attempt)), error=str(again))
                active = self._active_attempts.get(attempt)
                self._release(attempt)
                if active is not None:
                    await self._platform.return_delivery(active.delivery, _REFUSED_DELAY)
                return
        self._done(attempt)

    def _send_started(self, active: ActiveAttempt) -> None:
        if active.started is not None and not active.started_sent:
            active.started_sent = True
            self._platform.submit(active.started)

    def _done(self, attempt: Attempt) -> None:
        self._ended[attempt] = None
        while len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)
        active = self._active_attempts.get(attempt)
        self._release(attempt)
        if active is not None:
            self._background.spawn(self._platform.ack(active.delivery))

    def _release(self, attempt: Attempt) -> None:
        active = self._active_attempts.pop(attempt, None)
        self._platform.forget(attempt)
        if active is not None and not active.ended:
            self._free(attempt, active)
        if not self._active_attempts:
            self._idle.set()

    def _free(self, attempt: Attempt, active: ActiveAttempt) -> None:
        """An attempt's slot, or its place in line, is free."""
        self._active -= active.begun
        self._queued.discard(attempt)
        self._slot_queue.leave(attempt)
        self._want_free()

    def _want_free(self) -> None:
        """Give free slots to those in line, and ask for as many as may be here besides."""
        while not self._stopping and self._active < self._slots and (attempt := self._slot_queue.next()) is not None:
            self._start(attempt)
        room = self._slots + self._ahead - self._active - len(self._queued)
        self._want(0 if self._stopping else max(0, room))

    # ---------------------------------------------------------------------------------------- cancel, keep, stop

    async def cancel(self, run_id: str, reason: str) -> None:
        """A run was cancelled: end its attempts here and start none of it."""
        self._cancelled[run_id] = None
        while len(self._cancelled) > _CANCELLED_REMEMBERED:
            self._cancelled.popitem(last=False)
        for attempt in [attempt for attempt in self._active_attempts if attempt[0] == run_id]:
            active = self._active_attempts.get(attempt)
            if active is None or active.request.closing:
                continue
            if not active.begun:
                self._was_cancelled(active.request)
            elif self._executor is not None:
                await self._executor.cancel(*attempt, reason)

    async def kill(self, attempt: Attempt) -> None:
        """An attempt's end is written already, so whatever it still does counts for nothing."""
        active = self._active_attempts.get(attempt)
        if active is not None and not active.ended and not active.killed:
            active.killed = True
            if not active.begun:
                self._was_cancelled(active.request)
            elif self._executor is not None:
                await self._executor.cancel(*attempt, "the platform has ended it")

    async def extend_deliveries(self) -> None:
        """Put the redelivery of everything held off; to be called a few times per acknowledgement wait."""
        for active in list(self._active_attempts.values()):
            await self._platform.keep(active.delivery)

    async def find_ended_attempts(self) -> None:
        """End what others have ended in the log, should nobody have heard of it; to be called now and then."""
        places = {
            subjects.finished(*attempt): attempt
            for attempt, active in self._active_attempts.items()
            if not active.ended
        }
        for place in await self._platform.facts(list(places)) if places else ():
            await self.kill(places[place])

    async def stop(self, drain: float) -> None:
        """Take nothing more, give what runs `drain` seconds, end the rest as lost, and see the ends into the log."""
        self._stopping = True
        self._want_free()
        while (attempt := self._slot_queue.next()) is not None:
            active = self._active_attempts[attempt]
            await self._enqueue(attempt, active.request, active.delivery)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), drain)
        if self._executor is not None:
            await self._executor.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), 5.0)
        await self._background.wait(5.0)

    @property
    def running(self) -> int:
        """Attempts in hand."""
        return len(self._active_attempts)
