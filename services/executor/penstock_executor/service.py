"""The executor: takes attempts from its pool, has them run in processes, and reports their ends.

In: deliveries of `attempt.requested`, only as many as there are free slots. Out: `started`, `finished`, output.

Promises: a delivery is acknowledged only after the attempt's end is in the log. A redelivered attempt whose start is
in the log is reported `lost`, so that the scheduler decides on the next one; one that never started simply runs. The
broker keeps the first end, so whatever a second executor still reports is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from penstock_adapters.nats.consumer import Delivery
from penstock_contracts import events, subjects
from penstock_core import values
from penstock_core.errors import PenstockError
from penstock_core.facts import (
    ArtifactCommitted,
    AttemptFinished,
    AttemptRequested,
    AttemptStarted,
    CacheReport,
    ErrorInfo,
    Outcome,
)
from penstock_core.ports import Executor, Unavailable
from penstock_core.values import Value
from penstock_executor import attempts
from penstock_executor.edges import Attempt, Edges

STARTED_DELAY = 0.02
"""Seconds that a `started` fact waits: an attempt that ends before does without."""

_REMEMBERED = 10_000
_CANCELLED_REMEMBERED = 100_000
_OUTPUT_WAIT = 10.0
_REFUSED_DELAY = 10.0


@dataclass(slots=True)
class _Held:
    """An attempt in this executor's hands."""

    request: AttemptRequested
    delivery: Delivery
    started: AttemptStarted | None = None
    started_sent: bool = False
    timer: asyncio.TimerHandle | None = None
    ended: bool = False
    commits: bool = False
    cache: CacheReport | None = None
    output: list[Awaitable[None]] = field(default_factory=list[Awaitable[None]])


class ExecutorService:
    """Holds the attempts of one process; implements `AttemptEvents` for its `Executor`."""

    def __init__(
        self, name: str, slots: int, edges: Edges, want: Callable[[int], None], warn: Callable[..., None]
    ) -> None:
        self.name = name
        self._slots = slots
        self._edges = edges
        self._want = want
        self._warn = warn
        self._executor: Executor | None = None
        self._held: dict[Attempt, _Held] = {}
        self._ended: OrderedDict[Attempt, None] = OrderedDict()
        self._cancelled: OrderedDict[str, None] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
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
        request = events.decode(delivery.subject, delivery.data)
        if isinstance(request, events.Corrupt):
            self._spawn(self._corrupt(delivery, request))
            return
        if not isinstance(request, AttemptRequested):
            self._spawn(self._edges.ack(delivery))
            return
        attempt = (request.run_id, request.key, request.attempt)
        held = self._held.get(attempt)
        if held is not None:
            held.delivery = delivery  # a redelivery of what runs here; the newest one is acknowledged
            return
        if attempt in self._ended:
            self._spawn(self._edges.ack(delivery))
            return
        if self._stopping:
            self._spawn(self._edges.hand_back(delivery, 0.0))
            return
        self._held[attempt] = _Held(request, delivery)
        self._active += 1
        self._idle.clear()
        self._spawn(self._begin(attempt, request, delivery))

    async def _begin(self, attempt: Attempt, request: AttemptRequested, delivery: Delivery) -> None:
        try:
            if self._was_cancelled(request):
                return
            if request.not_before is not None and (delay := request.not_before - time.time()) > 0:
                self._release(attempt)
                await self._edges.hand_back(delivery, delay)
                return
            if (delivery.delivered > 1 or delivery.stream_seq <= self.horizon) and await self._known(request):
                return
            request = await self._with_inputs(request)
            if await self._from_cache(attempt, request):
                return
            where = await self._edges.workplace(request)
            # A cancel that came meanwhile found no process to end. Between this look and the start nothing is awaited.
            if self._was_cancelled(request):
                return
            assert self._executor is not None  # noqa: S101 - set by the composition root before open()
            await self._executor.start(request, where)
        except Unavailable as error:
            self._warn("an attempt is handed back", attempt="/".join(map(str, attempt)), error=str(error))
            self._release(attempt)
            await self._edges.hand_back(delivery, 1.0)
        except PenstockError as error:
            self._end(attempts.bad_end(request, Outcome.FAILED, type(error).__name__, str(error)))
        except Exception as error:
            self._warn("an attempt could not be started", attempt="/".join(map(str, attempt)), error=repr(error))
            self._end(
                attempts.bad_end(
                    request, Outcome.LOST, type(error).__name__, f"the executor could not start it: {error}"
                )
            )

    async def _from_cache(self, attempt: Attempt, request: AttemptRequested) -> bool:
        """End an attempt with an earlier result of the same call; True when there was one."""
        if request.cache is None:
            return False
        found = await self._edges.look(request, request.cache)
        held = self._held.get(attempt)
        if held is not None:
            held.cache = found.report
        if found.end is None:
            return False
        if not self._was_cancelled(request):
            self._end(found.end)
        return True

    def _was_cancelled(self, request: AttemptRequested) -> bool:
        """End an attempt whose run was cancelled; True when it was."""
        if request.run_id not in self._cancelled:
            return False
        self._end(attempts.bad_end(request, Outcome.CANCELLED, "Cancelled", "the run was cancelled before it started"))
        return True

    async def _known(self, request: AttemptRequested) -> bool:
        """Deal with an attempt that was delivered before; True when it must not run."""
        prefix = subjects.run(request.run_id, f"step.{request.key}.{request.attempt}")
        known = await self._edges.facts([f"{prefix}.started", f"{prefix}.finished"])
        if f"{prefix}.finished" in known:
            self._done((request.run_id, request.key, request.attempt))
            return True
        started = known.get(f"{prefix}.started")
        if started is not None and isinstance(started.fact, AttemptStarted):
            message = f"the executor {started.fact.executor} that ran it is gone"
            self._end(attempts.bad_end(request, Outcome.LOST, "Lost", message, started.fact.started_at))
            return True
        return False

    async def _corrupt(self, delivery: Delivery, corrupt: events.Corrupt) -> None:
        """An unreadable request still takes its place in the log; its attempt ends as lost, so another is requested."""
        await self._edges.park(delivery, corrupt.why)
        place = subjects.parse(corrupt.subject)
        if place is not None and place.key and place.attempt:
            end = AttemptFinished(
                run_id=place.run_id,
                key=place.key,
                attempt=place.attempt,
                outcome=Outcome.LOST,
                error=ErrorInfo(type="CorruptEvent", message=f"its request is unreadable: {corrupt.why}"),
                executor=self.name,
            )
            await self._edges.submit(end)
        await self._edges.ack(delivery)

    async def _with_inputs(self, request: AttemptRequested) -> AttemptRequested:
        """The request with results that it names by reference read from the log."""
        wanted = {ref for value in request.inputs.values() for ref in attempts.references(value)}
        if not wanted:
            return request
        places = {ref: subjects.finished(request.run_id, ref.key, ref.attempt) for ref in wanted}
        found = await self._edges.facts(list(dict.fromkeys(places.values())))
        results: dict[values.ResultRef, Value] = {}
        for ref, place in places.items():
            recorded = found.get(place)
            if recorded is None or not isinstance(recorded.fact, AttemptFinished):
                raise PenstockError(f"the result {ref.output!r} of step {ref.key!r} is not in the log any more")
            results[ref] = recorded.fact.outputs.get(ref.output, values.Inline(None))
        return replace(request, inputs={k: attempts.filled(v, results) for k, v in request.inputs.items()})

    # ------------------------------------------------------------------------------------------- AttemptEvents

    def started(self, fact: AttemptStarted) -> None:
        """The attempt's process runs. Its fact waits a moment for the end, which says the same and more."""
        held = self._held.get((fact.run_id, fact.key, fact.attempt))
        if held is not None:
            held.started = fact
            held.timer = asyncio.get_running_loop().call_later(STARTED_DELAY, self._send_started, held)

    def output(self, run_id: str, key: str, attempt: int, entries: list[dict[str, Any]]) -> None:
        """The attempt wrote something."""
        held = self._held.get((run_id, key, attempt))
        shipped = self._edges.output((run_id, key, attempt), entries)
        if held is not None:
            held.output.append(shipped)

    def committed(self, fact: ArtifactCommitted) -> None:
        """The attempt stored something."""
        held = self._held.get((fact.run_id, fact.key, fact.attempt))
        if held is not None:
            held.commits = True
            self._edges.commit(fact)

    def finished(self, fact: AttemptFinished) -> None:
        """The attempt ended."""
        self._end(fact)

    # ----------------------------------------------------------------------------------------------------- ends

    def _end(self, fact: AttemptFinished) -> None:
        """Report an end. Without output or artifacts, which is the fast path, it is submitted at once."""
        fact = fact if fact.executor else replace(fact, executor=self.name)
        attempt = (fact.run_id, fact.key, fact.attempt)
        held = self._held.get(attempt)
        if held is not None:
            if held.ended:
                return
            # The slot is free now; the delivery is held until the end is in the log.
            held.ended = True
            self._active -= 1
            self._want_free()
            if held.timer is not None:
                # A short attempt has no `started` in the log: its end says where and when it began, for one write less.
                held.timer.cancel()
            if held.output or held.commits or held.cache or attempts.stores(fact):
                self._spawn(self._end_after(attempt, held, fact))
                return
        self._submit_end(attempt, fact)

    async def _end_after(self, attempt: Attempt, held: _Held, fact: AttemptFinished) -> None:
        """What a finished attempt wrote is stored before its end is known, so that readers find it."""
        if held.output:
            await asyncio.wait([asyncio.ensure_future(part) for part in held.output], timeout=_OUTPUT_WAIT)
        await self._edges.settle(attempt)
        if fact.outcome is Outcome.CACHED:
            self._submit_end(attempt, fact)  # its artifacts are where everybody finds them
            return
        try:
            await self._edges.publish_artifacts(fact)
        except PenstockError as error:
            message = f"its artifacts could not be stored: {error}"
            fact = replace(
                fact,
                outcome=Outcome.FAILED,
                outputs={},
                artifacts={},
                error=ErrorInfo(type="StoreError", message=message),
            )
        if held.cache is not None:
            # Before the end is known: whoever acts on it and asks for the same call finds the result.
            fact = replace(fact, cache=await self._edges.keep_result(held.request, held.cache, fact))
        self._submit_end(attempt, fact)

    def _submit_end(self, attempt: Attempt, fact: AttemptFinished) -> None:
        written = self._edges.submit(fact)
        written.add_done_callback(lambda future: self._spawn(self._ended_in_log(attempt, fact, future)))

    async def _ended_in_log(self, attempt: Attempt, fact: AttemptFinished, written: asyncio.Future[bool]) -> None:
        if written.cancelled():
            return
        error = written.exception()
        if error is not None:
            # Refused for good, such as a body over the broker's limit: report that instead.
            self._warn("an end was refused", attempt="/".join(map(str, attempt)), error=str(error))
            try:
                await self._edges.submit(attempts.too_large(fact, error))
            except PenstockError as again:
                # Nothing can be recorded now. It comes again later, and counts as lost if its start is in the log.
                self._warn("no end could be recorded", attempt="/".join(map(str, attempt)), error=str(again))
                held = self._held.get(attempt)
                self._release(attempt)
                if held is not None:
                    await self._edges.hand_back(held.delivery, _REFUSED_DELAY)
                return
        self._done(attempt)

    def _send_started(self, held: _Held) -> None:
        if held.started is not None and not held.started_sent:
            held.started_sent = True
            self._edges.submit(held.started)

    def _done(self, attempt: Attempt) -> None:
        self._ended[attempt] = None
        while len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)
        held = self._held.get(attempt)
        self._release(attempt)
        if held is not None:
            self._spawn(self._edges.ack(held.delivery))

    def _release(self, attempt: Attempt) -> None:
        held = self._held.pop(attempt, None)
        self._edges.forget(attempt)
        if held is not None and not held.ended:
            self._active -= 1
            self._want_free()
        if not self._held:
            self._idle.set()

    def _want_free(self) -> None:
        self._want(0 if self._stopping else max(0, self._slots - self._active))

    # ---------------------------------------------------------------------------------------- cancel, keep, stop

    async def cancel(self, run_id: str, reason: str) -> None:
        """A run was cancelled: end its attempts here and start none of it."""
        self._cancelled[run_id] = None
        while len(self._cancelled) > _CANCELLED_REMEMBERED:
            self._cancelled.popitem(last=False)
        for attempt in [attempt for attempt in self._held if attempt[0] == run_id]:
            if self._executor is not None:
                await self._executor.cancel(*attempt, reason)

    async def keep_held(self) -> None:
        """Put the redelivery of everything held off; to be called a few times per acknowledgement wait."""
        for held in list(self._held.values()):
            await self._edges.keep(held.delivery)

    async def stop(self, drain: float) -> None:
        """Take nothing more, give what runs `drain` seconds, end the rest as lost, and see the ends into the log."""
        self._stopping = True
        self._want_free()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), drain)
        if self._executor is not None:
            await self._executor.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), 5.0)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5.0)

    @property
    def running(self) -> int:
        """Attempts in hand."""
        return len(self._held)

    def _spawn(self, work: Awaitable[None]) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)  # type: ignore[assignment]
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._warn("a task of the executor failed", error=repr(error))
