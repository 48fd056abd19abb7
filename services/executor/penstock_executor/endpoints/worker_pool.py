"""The warm workers of one generation: of a revision of a deployment with one version of its pipeline.

Calls go to the worker that was used last, so that those which are not needed become idle and are stopped. More are
started while calls wait. A worker that dies costs the call that it ran, which is refused as crashed, and no other.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from penstock_contracts.warm_calls import Refusal, ServedEndpoint
from penstock_core.deployments.definition import EndpointTrigger
from penstock_core.pipeline.ir import Pipeline
from penstock_core.pipeline.values import Value
from penstock_executor.endpoints.warm_worker import Call, WarmWorker

Json = dict[str, Any]

_START_AFTER = 0.1
"""Seconds that a call waits before another worker is started for it."""

_BACKOFF = 30.0
"""Longest pause between starts of workers that fail, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What the workers of a pool run."""

    project: str
    deployment: str
    revision: int
    version: int
    pipeline: Pipeline
    trigger: EndpointTrigger
    inputs: dict[str, Value] = field(default_factory=dict[str, Value])

    @property
    def key(self) -> tuple[int, int]:
        """Revision and version."""
        return self.revision, self.version

    @property
    def batch(self) -> tuple[int, float]:
        """How many calls a worker runs together, and how many seconds a call waits for others."""
        found = [spec.batch for spec in self.pipeline.steps.values() if spec.batch is not None]
        return max((one.max for one in found), default=1), max((one.wait for one in found), default=0.0)


class PoolHost(Protocol):
    """What a pool needs of its executor."""

    def new_name(self) -> str:
        """Return a name for a new worker."""
        ...

    async def launch(self, worker: WarmWorker, generation: Generation) -> None:
        """Start the process of a worker. Raises `PenstockError` or `OSError` if it cannot be started."""
        ...

    def kill(self, worker: WarmWorker) -> None:
        """Kill the process of a worker."""
        ...

    def changed(self, pool: WorkerPool) -> None:
        """Handle that a worker became ready, or that the last one ended, or could not be started."""
        ...

    def record(self, call: Call, facts: list[tuple[str, Json]] | None) -> None:
        """Record a run that has finished; None: only that it has finished."""
        ...

    def spawn(self, work: Awaitable[None]) -> None:
        """Run something in the background."""
        ...


class WorkerPool:
    """See the module. Create it on the event loop that it runs on."""

    def __init__(self, generation: Generation, host: PoolHost) -> None:
        self.generation = generation
        self.error = ""
        self.closing = False
        self.own = False
        """Whether it runs the version of the deployment itself, not only a canary or shadow."""
        self.warm = False
        """Whether it needs a worker at once, because the generation before it has some."""
        self.quiet = asyncio.Event()
        """Set when it is closing and has no call."""
        self.gone = asyncio.Event()
        """Set when it is closing and has no worker."""
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._workers: set[WarmWorker] = set()
        self._idle: list[WarmWorker] = []
        self._queue: deque[Call] = deque()
        self._failures = 0
        self._retry_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._batch = generation.batch
        self._batch_timer: asyncio.TimerHandle | None = None

    # ---------------------------------------------------------------------------------------------------------- state

    @property
    def ready(self) -> int:
        """Workers that have loaded the pipeline."""
        return sum(worker.ready and not worker.killed for worker in self._workers)

    @property
    def load(self) -> int:
        """Calls that run or wait."""
        return len(self._queue) + sum(call.end is None for worker in self._workers for call in worker.calls.values())

    @property
    def empty(self) -> bool:
        """Whether no process is left."""
        return not self._workers

    def served(self) -> ServedEndpoint:
        """What is announced of it."""
        generation = self.generation
        return ServedEndpoint(
            project=generation.project,
            deployment=generation.deployment,
            revision=generation.revision,
            version=generation.version,
            own=self.own,
            ready=self.ready,
            load=self.load,
            error=self.error,
        )

    # ---------------------------------------------------------------------------------------------------------- calls

    def submit(
        self, run: Json, number: int, reply: Callable[[Json], None], items: Callable[[Json], None] | None = None
    ) -> None:
        """Run a call; its reply is a `CallReply`. With `items`, the items of its output come before it."""
        trigger, now = self.generation.trigger, self._loop.time()
        record = random.random() < trigger.record  # noqa: S311 - a sample
        call = Call(number, run, reply, record, since=now, items=items)
        if self.load >= trigger.queue:
            call.answer(_refused(Refusal.BUSY))
            return
        if self.error and not self.ready and now < self._retry_at:
            call.answer(_refused(Refusal.BROKEN, self.error))
            return
        call.timer = self._loop.call_later(trigger.wait, self._late, call)
        self.quiet.clear()  # gateways that do not know yet that it is closing still send calls
        self.gone.clear()
        self._queue.append(call)
        self._dispatch()

    def cancel(self, number: int) -> None:
        """End a call whose client has disconnected: at once, or at the next item that its worker yields."""
        call = next((one for one in self._queue if one.number == number), None)
        if call is not None:
            self._queue.remove(call)
            call.end = {"outcome": "cancelled", "error": "the client has disconnected", "outputs": {}}
            call.answer({"end": call.end})
            self._host.record(call, None)
            self._dispatch()
        elif (worker := self._worker_of(number)) is not None:
            worker.control({"cancel": number})

    def confirm(self, number: int, sent: int) -> None:
        """Tell the worker of a call how many bytes of its items the client has received."""
        if (worker := self._worker_of(number)) is not None:
            worker.control({"received": [number, sent]})

    def _worker_of(self, number: int) -> WarmWorker | None:
        return next((one for one in self._workers if number in one.calls), None)

    def _dispatch(self) -> None:
        while self._queue and self._idle and self._is_due():
            self._idle.pop().send(self._next())
        if self.closing and not self.load:
            self.quiet.set()
            if not self._workers:
                self.gone.set()
        self.scale()

    def _is_due(self) -> bool:
        """Whether the calls that wait should run now, although further ones could join their batch."""
        most, wait = self._batch
        if len(self._queue) >= most or self._queue[0].alone:
            return True
        due = self._queue[0].since + wait
        if due <= self._loop.time():
            return True
        if self._batch_timer is None or self._batch_timer.when() > due:
            self._batch_timer = self._loop.call_at(due, self._batch_due)
        return False

    def _batch_due(self) -> None:
        self._batch_timer = None
        self._dispatch()

    def _next(self) -> list[Call]:
        """Take the calls that a worker runs next, together."""
        found = [self._queue.popleft()]
        while self._queue and len(found) < self._batch[0] and not (found[0].alone or self._queue[0].alone):
            found.append(self._queue.popleft())
        return found

    def _late(self, call: Call) -> None:
        call.timer = None
        if call in self._queue:
            self._queue.remove(call)
        worker = self._worker_of(call.number)
        if worker is not None:
            worker.error = f"the request ran longer than the time limit of {self.generation.trigger.wait:g} s"
            self._kill(worker)
        call.answer(_refused(Refusal.LATE))

    # -------------------------------------------------------------------------------------------------------- workers

    def scale(self) -> None:
        """Start a worker if there are fewer than calls need, or than the minimum."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        trigger, now = self.generation.trigger, self._loop.time()
        alive = sum(not worker.killed for worker in self._workers)
        least = 0 if self.closing else max(trigger.min_workers, int(self.warm))
        wanted = max(least, min(self.load, trigger.max_workers))
        if alive >= wanted or any(not worker.ready and not worker.killed for worker in self._workers):
            return
        due = max(self._retry_at, self._queue[0].since + _START_AFTER if self._queue and alive else 0.0)
        if due > now:
            self._timer = self._loop.call_at(due, self.scale)
            return
        worker = WarmWorker(self._host.new_name(), self)
        self._workers.add(worker)
        self._host.spawn(self._start(worker))

    async def _start(self, worker: WarmWorker) -> None:
        try:
            await self._host.launch(worker, self.generation)
        except Exception as error:
            self.ended(worker, f"{type(error).__name__}: {error}"[:2000])
            await worker.received_all()

    def on_ready(self, worker: WarmWorker) -> None:
        """See `WorkerListener`."""
        self.error, self._failures, self._retry_at, self.warm = "", 0, 0.0, False
        self._free(worker)
        self._host.changed(self)

    def on_end(self, worker: WarmWorker, call: Call) -> None:
        """See `WorkerListener`."""
        if call.timer is not None:
            call.answer({"end": call.end})
        self._free(worker)

    def on_facts(self, call: Call, facts: list[tuple[str, Json]] | None) -> None:
        """See `WorkerListener`."""
        if facts is not None:
            self._host.record(call, facts)

    def _free(self, worker: WarmWorker) -> None:
        if not worker.killed and not worker.busy:
            worker.idle_since = self._loop.time()
            self._idle.append(worker)
        self._dispatch()

    def ended(self, worker: WarmWorker, why: str) -> None:
        """Handle the end of a worker's process."""
        if worker not in self._workers:
            return
        self._workers.discard(worker)
        self._forget(worker)
        began = [call for call in worker.calls.values() if call.end is None]
        for call in [*worker.calls.values()]:
            if call.end is None and len(began) > 1 and call.timer is not None and not call.count:
                call.alone = True  # one of them ended the worker: each is run once more, by itself
                self._queue.appendleft(call)
            else:
                self._lost(call, worker.error or why)
        worker.calls.clear()
        if not worker.ready and not worker.killed:
            self._failed(worker.error or why)
        elif not self._workers:
            self._host.changed(self)
        self._dispatch()

    def _lost(self, call: Call, why: str) -> None:
        """End a call whose worker has died, and record its run."""
        if call.end is None:
            call.end = {"outcome": "failed", "error": f"the worker of the endpoint ended: {why}", "outputs": {}}
            if call.timer is not None:
                call.answer(_refused(Refusal.CRASHED, why))
        self._host.record(call, None)

    def _failed(self, why: str) -> None:
        """Handle that a worker could not start: calls that wait are refused if there is no other."""
        self._failures += 1
        self.error = why
        self._retry_at = self._loop.time() + min(_BACKOFF, 0.5 * 2**self._failures)
        if not self.ready:
            while self._queue:
                self._queue.popleft().answer(_refused(Refusal.BROKEN, why))
        self._host.changed(self)
        self.scale()

    def _kill(self, worker: WarmWorker) -> None:
        worker.killed = True
        self._forget(worker)
        self._host.kill(worker)

    def _forget(self, worker: WarmWorker) -> None:
        if worker in self._idle:
            self._idle.remove(worker)

    def stop_idle(self) -> None:
        """Stop a worker that was idle for long, unless the minimum needs it. To be called each second."""
        trigger = self.generation.trigger
        for worker in self._idle:
            surplus = self.ready - (0 if self.closing else trigger.min_workers)
            if surplus > 0 and (self.closing or self._loop.time() - worker.idle_since >= trigger.idle):
                self._stop(worker)
                return

    def _stop(self, worker: WarmWorker) -> None:
        worker.killed = True
        self._forget(worker)
        worker.close()

    def close(self) -> None:
        """Start no more workers than calls need."""
        self.closing = True
        self._dispatch()

    def stop_when_idle(self) -> None:
        """Of a pool that is closing: stop all workers without a call."""
        for worker in [*self._idle]:
            self._stop(worker)
        if not self._queue:
            for worker in self._workers:
                if not worker.ready and not worker.killed:
                    self._kill(worker)

    def abort(self) -> None:
        """Refuse the calls that wait, and kill the workers."""
        self.closing = True
        if self._timer is not None:
            self._timer.cancel()
        while self._queue:
            self._queue.popleft().answer(_refused(Refusal.GONE))
        for worker in [*self._workers]:
            self._kill(worker)


def _refused(why: Refusal, detail: str = "") -> Json:
    return {"refused": why.value, "detail": detail}
