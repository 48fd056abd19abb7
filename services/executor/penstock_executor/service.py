"""The executor: takes attempts from its pool, submits them to its adapter, and reports their ends.

In: deliveries of `attempt.requested`, only as many as there are free slots, and `look_ahead` more, which wait for a
slot by priority. Out: `started`, `finished`, output, metrics, stored artifacts.

Promises: a delivery is acknowledged only after the attempt's end is in the log. If this executor dies, another one gets
the delivery: it reports the attempt lost, or takes it over where attempts outlive their executor (`Executor.durable`).
A redelivered attempt may be another executor's: its owner, or every other executor, is asked before it runs here or is
reported lost (`penstock_core.ownership`). An attempt with slots of limits starts only once the log says that this
executor owns it. An attempt whose end is in the log never runs again. The broker stores the first end only, so the end
that a second executor reports is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

from penstock_adapters.nats.consumer import Delivery
from penstock_adapters.nats.results import resolve_inputs
from penstock_contracts import fact_codec, subjects
from penstock_core import exhaustion, ids, ownership, script_runs
from penstock_core.errors import PenstockError, UnavailableError
from penstock_core.facts import (
    ArtifactCommitted,
    AttemptFinished,
    AttemptRequested,
    AttemptStarted,
    AttemptStopped,
    Outcome,
)
from penstock_core.ownership import Action, OwnerStatus
from penstock_core.ports import Executor
from penstock_core.run import retry
from penstock_core.shipping.messages import AttemptKey, Message
from penstock_executor import attempt_facts
from penstock_executor.active_attempt import ActiveAttempt, finalize_end
from penstock_executor.background_tasks import BackgroundTasks
from penstock_executor.interpreters import EnvironmentMissingError
from penstock_executor.platform import Platform
from penstock_executor.slot_queue import SlotQueue

STARTED_DELAY = 0.02
"""Seconds until a `started` fact is written: an attempt that ends before has none."""

_REMEMBERED = 10_000
_CANCELLED_REMEMBERED = 100_000
_REFUSED_DELAY = 10.0
_ENVIRONMENT_HANDBACKS = 3
"""How often an attempt whose environment is not on this machine is handed back before it fails."""

_ENVIRONMENT_DELAY = 0.5
_HAND_BACK_DELAY = 1.0
_SHORTAGES = 30
"""How often an attempt is handed back for want of resources before it counts as lost."""

_JUDGE_DELAY = 1.0
"""Seconds until an attempt is judged again that may be another executor's."""


class _NotOursError(PenstockError):
    """The attempt must not start here: another executor owns it, or its end is in the log."""


class ExecutorService:
    """Manages the attempts of one executor; implements `AttemptEvents` and `AttemptOutbox` for its adapter.

    Args:
        name: name of this replica in facts.
        slots: attempts that run at the same time.
        platform: the rest of the platform.
        want: requests so many deliveries from now on.
        warn: writes to the log of the service.
        look_ahead: attempts that wait here for a slot.
    """

    def __init__(
        self,
        name: str,
        slots: int,
        platform: Platform,
        want: Callable[[int], None],
        warn: Callable[..., None],
        *,
        look_ahead: int = 0,
    ) -> None:
        self.name = name
        self._slots = slots
        self._look_ahead = look_ahead
        self._slot_queue = SlotQueue(self._expire)
        self._queued: set[AttemptKey] = set()
        self._platform = platform
        self._want = want
        self._warn = warn
        self._executor: Executor | None = None
        self._active_attempts: dict[AttemptKey, ActiveAttempt] = {}
        self._ended: OrderedDict[AttemptKey, None] = OrderedDict()
        self._cancelled: OrderedDict[str, None] = OrderedDict()
        self._handed_back: OrderedDict[AttemptKey, int] = OrderedDict()
        self._background = BackgroundTasks(warn)
        self._stopping = False
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.shortages = 0
        """How often an attempt was handed back because the machine had run out of something."""
        self.horizon = 0
        """Log sequence up to which even a first delivery may be a repeated one: the server may have lost its count."""

    def use(self, executor: Executor) -> None:
        """Set the adapter that runs the attempts."""
        self._executor = executor

    def open(self) -> None:
        """Start to take attempts."""
        self._fill_slots()

    # ------------------------------------------------------------------------------------------------ deliveries

    def receive(self, delivery: Delivery) -> None:
        """Handle a delivery, and request others for the slots that are free."""
        self._take(delivery)
        self._fill_slots()

    def _take(self, delivery: Delivery) -> None:
        request = fact_codec.decode(delivery.subject, delivery.data)
        if isinstance(request, fact_codec.UnreadableFact):
            self._background.spawn(self._corrupt(delivery, request))
            return
        if not isinstance(request, AttemptRequested) or _is_recorded(request):
            self._background.spawn(self._platform.ack(delivery))
            return
        attempt = (request.run_id, request.key, request.attempt)
        active = self._active_attempts.get(attempt)
        if active is not None:
            active.delivery = delivery  # a redelivery of an attempt that is here; the newest one is acknowledged
            return
        if attempt in self._ended:
            self._background.spawn(self._platform.ack(delivery))
            return
        if self._stopping:
            self._background.spawn(self._platform.return_delivery(delivery, 0.0))
            return
        judged = not self._may_be_repeated(delivery)
        self._active_attempts[attempt] = ActiveAttempt(request, delivery, judged=judged)
        self._idle.clear()
        if self._running < self._slots or not self._look_ahead:
            self._start(attempt)
            return
        self._queued.add(attempt)
        self._background.spawn(self._begin(attempt, request, delivery))

    def _start(self, attempt: AttemptKey) -> None:
        """Give an attempt a slot."""
        active = self._active_attempts[attempt]
        active.has_slot = True
        self._running += 1
        self._queued.discard(attempt)
        self._background.spawn(self._begin(attempt, active.request, active.delivery))

    async def _begin(self, attempt: AttemptKey, request: AttemptRequested, delivery: Delivery) -> None:
        """Submit an attempt, or queue it if it has no slot; report an end or hand it back on errors."""
        try:
            await self._submit_or_enqueue(attempt, request, delivery)
        except _NotOursError:
            self._release(attempt)
            await self._platform.return_delivery(delivery, _JUDGE_DELAY)
        except UnavailableError as error:
            if exhaustion.is_exhaustion(error):
                await self._out_of_resources(attempt, str(error))
                return
            self._warn("attempt handed back", attempt="/".join(map(str, attempt)), error=str(error))
            await self._hand_back(attempt)
        except EnvironmentMissingError as error:
            if delivery.delivered <= _ENVIRONMENT_HANDBACKS:  # another executor of the pool may have it
                self._release(attempt)
                await self._platform.return_delivery(delivery, _ENVIRONMENT_DELAY)
                return
            self._end(attempt_facts.bad_end(request, Outcome.FAILED, retry.ENVIRONMENT_MISSING, str(error)))
        except (PenstockError, OSError) as error:
            if exhaustion.is_exhaustion(error):
                await self._out_of_resources(attempt, str(error))
                return
            self._end(attempt_facts.bad_end(request, Outcome.FAILED, type(error).__name__, str(error)))
        except Exception as error:
            self._warn("attempt could not be started", attempt="/".join(map(str, attempt)), error=repr(error))
            message = f"the executor could not start the attempt: {error}"
            self._end(attempt_facts.bad_end(request, Outcome.LOST, type(error).__name__, message))

    async def _out_of_resources(self, attempt: AttemptKey, why: str) -> None:
        """Hand back an attempt without a process because the machine has run out of something."""
        active = self._active_attempts.get(attempt)
        if active is None:
            return
        self.shortages += 1
        self._warn("attempt handed back: out of resources", attempt="/".join(map(str, attempt)), error=why)
        times = self._handed_back.get(attempt, 0)
        if times < _SHORTAGES:
            await self._hand_back(attempt)
        else:  # not for ever: what the user's module does while it is imported may be the reason
            self._handed_back.pop(attempt, None)
            self._end(attempt_facts.bad_end(active.request, Outcome.LOST, exhaustion.OUT_OF_RESOURCES, why))

    async def _hand_back(self, attempt: AttemptKey) -> None:
        """Have an attempt without a process delivered again, here or to another executor."""
        active = self._active_attempts.get(attempt)
        if active is None:
            return
        self._handed_back[attempt] = self._handed_back.get(attempt, 0) + 1
        while len(self._handed_back) > _REMEMBERED:
            self._handed_back.popitem(last=False)
        self._release(attempt)
        await self._platform.return_delivery(active.delivery, _HAND_BACK_DELAY)

    async def _submit_or_enqueue(self, attempt: AttemptKey, request: AttemptRequested, delivery: Delivery) -> None:
        active = self._active_attempts.get(attempt)
        if active is None or active.ended:
            return
        if not active.judged:
            if not await self._judge(request):
                return
            active.judged = True
        if self._was_cancelled(request):
            return
        not_before = request.not_before or 0.0
        if (delay := retry.remaining_delay(not_before, delivery.at, time.time(), delivery.delivered)) > 0:
            self._release(attempt)
            await self._platform.return_delivery(delivery, delay)
            return
        if request.start_by is not None and time.time() >= request.start_by:
            self._end(attempt_facts.queue_timeout(request))
            return
        active = self._active_attempts.get(attempt)
        if active is None or active.ended:
            return
        if not active.has_slot:
            await self._enqueue(attempt, request, delivery)
            return
        request = await resolve_inputs(request, self._platform.facts)
        active.request = request
        if await self._from_cache(attempt, request):
            return
        # A cancel that came meanwhile was not passed on. Nothing is awaited between this check and `submit`.
        if self._was_cancelled(request):
            return
        await self._submit(attempt, request)

    async def _submit(self, attempt: AttemptKey, request: AttemptRequested) -> None:
        assert self._executor is not None  # noqa: S101 - set by the composition root before open()
        active = self._active_attempts.get(attempt)
        if active is not None:
            active.submitted = True  # its runner may claim it before `submit` returns
        await self._executor.submit(request)

    def _may_be_repeated(self, delivery: Delivery) -> bool:
        """Whether the log must be asked before an attempt is submitted."""
        durable = self._executor is not None and self._executor.durable
        repeated = delivery.delivered > 1 or delivery.stream_seq <= self.horizon
        return durable or repeated or fact_codec.RESTORED in delivery.headers

    async def _enqueue(self, attempt: AttemptKey, request: AttemptRequested, delivery: Delivery) -> None:
        if self._stopping:  # another executor starts it, or this one later
            self._release(attempt)
            await self._platform.return_delivery(delivery, 0.0)
        else:
            self._slot_queue.add(request, delivery.at)
            self._fill_slots()

    def _expire(self, attempt: AttemptKey) -> None:
        """End an attempt that has waited for a slot until its `start_by`."""
        active = self._active_attempts.get(attempt)
        if active is not None and not active.has_slot:
            self._end(attempt_facts.queue_timeout(active.request))

    async def _from_cache(self, attempt: AttemptKey, request: AttemptRequested) -> bool:
        """End an attempt with the cached result of the same call; False when there is none."""
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
        """End an attempt whose run was cancelled, or that was killed; False when neither is so."""
        active = self._active_attempts.get((request.run_id, request.key, request.attempt))
        if (active is None or not active.killed) and (request.run_id not in self._cancelled or request.closing):
            return False
        self._end(
            attempt_facts.bad_end(request, Outcome.CANCELLED, "Cancelled", "the run was cancelled before it started")
        )
        return True

    async def _judge(self, request: AttemptRequested) -> bool:
        """Return whether an attempt runs here that may be another executor's; otherwise do what is to be done."""
        attempt = (request.run_id, request.key, request.attempt)
        prefix = subjects.run(request.run_id, f"step.{request.key}.{request.attempt}")
        known = await self._platform.facts([f"{prefix}.{tail}" for tail in ("started", "finished", "stopped")])
        facts = [known[subject].fact for subject in known]
        started = next((fact for fact in facts if isinstance(fact, AttemptStarted)), None)
        finished = next((fact for fact in facts if isinstance(fact, AttemptFinished)), None)
        stopped = any(isinstance(fact, AttemptStopped) for fact in facts)
        statuses: list[OwnerStatus] = []
        if self._executor is not None and self._executor.durable:
            active = self._active_attempts.get(attempt)
            if active is not None and started is not None:
                active.runner = started.executor
            started = None  # the adapter takes the attempt over
        elif started is not None:
            if finished is None or ownership.awaits_stop(limited=request.limited, finished=finished, stopped=stopped):
                statuses = [await self._platform.owner_status(started)]
        elif finished is None:
            statuses = await self._platform.others(attempt)
        match ownership.judge(
            limited=request.limited, started=started, finished=finished, stopped=stopped, statuses=statuses
        ):
            case Action.RUN:
                return True
            case Action.WAIT:
                raise _NotOursError("another executor may have the attempt")
            case Action.LOST if started is not None and not self._may_go_on(started, attempt):
                message = f"the executor {started.executor} that ran the attempt has stopped"
                self._end(attempt_facts.bad_end(request, Outcome.LOST, "Lost", message, started.started_at))
            case Action.LOST:
                return True
            case Action.STOPPED:
                await self._record_stop(attempt)
                self._done(attempt)
            case Action.DONE:
                self._done(attempt)
        return False

    def _may_go_on(self, started: AttemptStarted, attempt: AttemptKey) -> bool:
        """Whether this executor owns an attempt, and had handed it back before it had a process."""
        return self._is_ours(started) and attempt in self._handed_back

    def _is_ours(self, started: AttemptStarted) -> bool:
        return started.executor == self.name and started.fence == self._platform.fence

    async def _record_stop(self, attempt: AttemptKey) -> None:
        run_id, key, number = attempt
        await self._platform.submit(AttemptStopped(run_id=run_id, key=key, attempt=number))

    async def own(self, request: AttemptRequested) -> None:
        """Record that this executor owns an attempt, if it may be started by others or has slots of limits.

        Other attempts start at once, to save a write: their owner is recorded a moment later.

        Raises:
            UnavailableError: this executor has no valid lease.
        """
        attempt = (request.run_id, request.key, request.attempt)
        active = self._active_attempts.get(attempt)
        if active is None or not (request.limited or self._may_be_repeated(active.delivery)):
            return
        fence = self._platform.fence
        if not fence:
            raise UnavailableError("this executor has no valid lease")
        fact = AttemptStarted(
            run_id=request.run_id,
            key=request.key,
            attempt=request.attempt,
            executor=self.name,
            fence=fence,
            host=attempt_facts.HOST,
            started_at=time.time(),
        )
        if not await self._owns(fact):
            raise _NotOursError("another executor owns the attempt")
        if request.limited and await self._platform.latest(subjects.finished(*attempt)) is not None:
            # Its end was recorded before anybody owned it, so its slots are released: see the scheduler.
            raise _NotOursError("the attempt has ended")
        if fence != self._platform.fence:
            raise UnavailableError("the lease of this executor has ended")
        active.owned = active.started_sent = True

    async def _owns(self, fact: AttemptStarted) -> bool:
        """Write the owner of an attempt; returns whether it is this executor."""
        if await self._platform.submit(fact):
            return True
        known = await self._platform.latest(subjects.run(fact.run_id, fact.tail))
        return isinstance(known, AttemptStarted) and self._is_ours(known)

    async def _corrupt(self, delivery: Delivery, corrupt: fact_codec.UnreadableFact) -> None:
        """Park an unreadable request. Its attempt ends as lost, so that the scheduler requests another one."""
        await self._platform.park(delivery, corrupt.why)
        parsed = subjects.parse(corrupt.subject)
        if parsed is not None and parsed.key and parsed.attempt:
            await self._platform.submit(
                attempt_facts.unreadable(parsed.run_id, parsed.key, parsed.attempt, corrupt.why, self.name)
            )
        await self._platform.ack(delivery)

    # ------------------------------------------------------------------------ runners in pods, which outlive this one

    def submitted(self, attempt: AttemptKey) -> AttemptRequested | None:
        """Return an attempt that was submitted here and has not ended, with its inputs resolved."""
        active = self._active_attempts.get(attempt)
        return active.request if active is not None and active.submitted and not active.ended else None

    async def has_ended(self, attempt: AttemptKey) -> bool:
        """Whether the end of an attempt is in the log.

        Raises:
            UnavailableError: the log does not answer.
        """
        return attempt in self._ended or await self._platform.latest(subjects.finished(*attempt)) is not None

    def runner(self, request: AttemptRequested) -> str:
        """Return the runner that had claimed an attempt when it was delivered here; empty if none had."""
        active = self._active_attempts.get((request.run_id, request.key, request.attempt))
        return active.runner if active is not None else ""

    async def claim(self, attempt: AttemptKey, runner: str, host: str) -> tuple[str, str]:
        """Record that a runner starts an attempt; returns its owner, and why the runner must not, or an empty text.

        Raises:
            UnavailableError: the log does not answer, or this executor has no valid lease.
        """
        run_id, key, number = attempt
        fence = self._platform.fence
        if not fence:
            raise UnavailableError("this executor has no valid lease")
        started_at = time.time()
        fact = AttemptStarted(
            run_id=run_id, key=key, attempt=number, executor=runner, fence=fence, host=host, started_at=started_at
        )
        if not await self._platform.submit(fact):
            known = await self._platform.latest(subjects.run(run_id, fact.tail))
            if not isinstance(known, AttemptStarted) or known.executor != runner:
                owner = known.executor if isinstance(known, AttemptStarted) else ""
                return owner, "another pod has started it"
        if await self._platform.latest(subjects.finished(*attempt)) is not None:
            return runner, "it has ended"
        return runner, ""

    async def report(self, fact: AttemptFinished) -> None:
        """Report the end of an attempt by its runner; returns when it is in the log, or another executor has to."""
        active = self._active_attempts.get((fact.run_id, fact.key, fact.attempt))
        self._end(fact)
        if active is not None:
            await active.released.wait()

    # ----------------------------------------------------------------------------- AttemptEvents and AttemptOutbox

    def started(self, fact: AttemptStarted) -> None:
        """Write the fact in a moment, unless the attempt ends before: its end has the same information."""
        active = self._active_attempts.get((fact.run_id, fact.key, fact.attempt))
        if active is not None and not active.owned:
            active.started = replace(fact, fence=self._platform.fence)
            active.timer = asyncio.get_running_loop().call_later(STARTED_DELAY, self._send_started, active)

    def publish(self, message: Message) -> None:
        """Publish a part of an attempt's output or metrics, or its progress."""
        if message.latest:  # nobody waits for it: the next one comes soon
            self._platform.replace(message)
            return
        active = self._active_attempts.get(message.attempt)
        shipped = self._platform.publish(message)
        if active is not None:
            active.shipped.append(shipped)

    def commit(self, fact: ArtifactCommitted) -> None:
        """Announce an object that an attempt has stored."""
        active = self._active_attempts.get((fact.run_id, fact.key, fact.attempt))
        if active is not None:
            active.commits = True
            self._platform.commit(fact)

    def finished(self, fact: AttemptFinished) -> None:
        """Report the end of an attempt. It is handed back if there was no room for its process."""
        attempt = (fact.run_id, fact.key, fact.attempt)
        active = self._active_attempts.get(attempt)
        if active is not None and fact.error is not None and _had_no_room(fact):
            self._background.spawn(self._out_of_resources(attempt, fact.error.message))
            return
        self._end(fact)

    # ----------------------------------------------------------------------------------------------------- ends

    def _end(self, fact: AttemptFinished) -> None:
        """Report an end, at once if the attempt has no output and no artifacts."""
        fact = fact if fact.executor else replace(fact, executor=self.name)
        attempt = (fact.run_id, fact.key, fact.attempt)
        active = self._active_attempts.get(attempt)
        if active is not None:
            if active.ended:
                return
            if active.disowned:
                self._background.spawn(self._platform.ack(active.delivery))
                self._release(attempt)
                return
            # The slot is free now; the delivery stays in flight until the end is in the log.
            active.ended = True
            self._free(attempt, active)
            if active.timer is not None:
                # A short attempt has no `started` in the log, to save a write: its end says where and when it began.
                active.timer.cancel()
            if active.shipped or active.commits or active.cache or attempt_facts.stores(fact):
                self._background.spawn(self._end_after(attempt, active, fact))
                return
        self._submit_end(attempt, fact)

    async def _end_after(self, attempt: AttemptKey, active: ActiveAttempt, fact: AttemptFinished) -> None:
        """Store what the attempt wrote before its end is reported, so that readers find it."""
        self._submit_end(attempt, await finalize_end(self._platform, active, fact))

    def _submit_end(self, attempt: AttemptKey, fact: AttemptFinished) -> None:
        written = self._platform.submit(fact)
        written.add_done_callback(lambda future: self._background.spawn(self._ended_in_log(attempt, fact, future)))

    async def _ended_in_log(self, attempt: AttemptKey, fact: AttemptFinished, written: asyncio.Future[bool]) -> None:
        if written.cancelled():
            return
        error = written.exception()
        if error is not None:
            # A final refusal, such as of a body over the broker's limit: report that instead.
            self._warn("end of attempt refused", attempt="/".join(map(str, attempt)), error=str(error))
            try:
                await self._platform.submit(attempt_facts.too_large(fact, error))
            except PenstockError as second:
                # Nothing can be recorded now. It is redelivered later, and counts as lost if its start is in the log.
                self._warn("end of attempt not recorded", attempt="/".join(map(str, attempt)), error=str(second))
                active = self._active_attempts.get(attempt)
                self._release(attempt)
                if active is not None:
                    await self._platform.return_delivery(active.delivery, _REFUSED_DELAY)
                return
        active = self._active_attempts.get(attempt)
        if error is None and not written.result() and active is not None and active.request.limited:
            await self._record_stop(attempt)  # others had recorded the end, and wait for this
        self._done(attempt)

    def _send_started(self, active: ActiveAttempt) -> None:
        if active.started is not None and not active.started_sent:
            active.started_sent = True
            self._background.spawn(self._record_owner(active, active.started))

    async def _record_owner(self, active: ActiveAttempt, fact: AttemptStarted) -> None:
        """Record that this executor owns an attempt that runs; end its process if another one owns it."""
        if await self._owns(fact) or active.ended:
            return
        self._warn("another executor owns the attempt; its process here is ended", attempt=fact.tail, run=fact.run_id)
        active.disowned = True
        if self._executor is not None:
            await self._executor.cancel(fact.run_id, fact.key, fact.attempt, "another executor owns the attempt")

    def _done(self, attempt: AttemptKey) -> None:
        self._ended[attempt] = None
        self._handed_back.pop(attempt, None)
        while len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)
        active = self._active_attempts.get(attempt)
        self._release(attempt)
        if active is not None:
            self._background.spawn(self._platform.ack(active.delivery))

    def _release(self, attempt: AttemptKey) -> None:
        active = self._active_attempts.pop(attempt, None)
        if active is not None:
            active.released.set()
        self._platform.forget(attempt)
        if active is not None and not active.ended:
            self._free(attempt, active)
        if not self._active_attempts:
            self._idle.set()

    def _free(self, attempt: AttemptKey, active: ActiveAttempt) -> None:
        """Free an attempt's slot, or its place in the queue."""
        self._running -= active.has_slot
        self._queued.discard(attempt)
        self._slot_queue.remove(attempt)
        self._fill_slots()

    def _fill_slots(self) -> None:
        """Give free slots to queued attempts, and request as many deliveries as there is room for."""
        while not self._stopping and self._running < self._slots and (attempt := self._slot_queue.next()) is not None:
            self._start(attempt)
        room = self._slots + self._look_ahead - self._running - len(self._queued)
        self._want(0 if self._stopping else max(0, room))

    # -------------------------------------------------------------------------------------- cancel, extend, stop

    async def cancel(self, run_id: str, reason: str) -> None:
        """End the attempts of a cancelled run here, and start no more of them."""
        self._cancelled[run_id] = None
        while len(self._cancelled) > _CANCELLED_REMEMBERED:
            self._cancelled.popitem(last=False)
        for attempt in [attempt for attempt in self._active_attempts if attempt[0] == run_id]:
            active = self._active_attempts.get(attempt)
            if active is None or active.request.closing:
                continue
            if not active.has_slot and active.judged:
                self._was_cancelled(active.request)
            elif active.has_slot and self._executor is not None:
                await self._executor.cancel(*attempt, reason)

    async def kill(self, attempt: AttemptKey) -> None:
        """End an attempt whose end is in the log already: its result does not count."""
        active = self._active_attempts.get(attempt)
        if active is not None and not active.ended and not active.killed:
            active.killed = True
            if not active.has_slot and active.judged:
                self._was_cancelled(active.request)
            elif active.has_slot and self._executor is not None:
                await self._executor.cancel(*attempt, "the platform has ended the attempt")

    async def extend_deliveries(self) -> None:
        """Postpone the redelivery of everything in flight; to be called a few times per acknowledgement wait."""
        for active in list(self._active_attempts.values()):
            await self._platform.extend(active.delivery)

    async def find_ended_attempts(self) -> None:
        """End attempts whose end others have written to the log, in case a kill was missed; called periodically."""
        ends = {
            subjects.finished(*attempt): attempt
            for attempt, active in self._active_attempts.items()
            if not active.ended
        }
        for subject in await self._platform.facts(list(ends)) if ends else ():
            await self.kill(ends[subject])

    async def stop(self, drain: float) -> None:
        """Take no more attempts, let running ones finish for `drain` seconds, end the rest, and log all ends.

        Attempts that outlive this executor are handed to other executors at once.
        """
        self._stopping = True
        self._fill_slots()
        if self._executor is not None and self._executor.durable:
            for attempt, active in [item for item in self._active_attempts.items() if not item[1].ended]:
                self._release(attempt)
                await self._platform.return_delivery(active.delivery, 0.0)
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

    def has(self, attempt: AttemptKey) -> bool:
        """Whether an attempt is here, with or without a process."""
        active = self._active_attempts.get(attempt)
        return active is not None and active.judged

    @property
    def active_count(self) -> int:
        """Attempts that are here, with or without a slot."""
        return len(self._active_attempts)


def _is_recorded(request: AttemptRequested) -> bool:
    """Whether the attempt ended before it was recorded, so that nothing is to be run."""
    return request.version == script_runs.VERSION or ids.is_recorded(request.run_id)


def _had_no_room(fact: AttemptFinished) -> bool:
    return (
        fact.outcome is Outcome.LOST
        and fact.error is not None
        and fact.error.type == exhaustion.OUT_OF_RESOURCES
        and not fact.started_at
    )
