"""Runs attempts as forked children of fork servers, one server for each environment, source folder and `env`.

In: attempts. Out: what happens to them, told to `AttemptEvents` on the event loop. No user code runs here.

Promises: every attempt that was started gets exactly one `finished`, whatever it does and whoever is killed; no process
of an attempt outlives it for more than a moment; nothing that an attempt sends can harm another.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import orjson

from penstock_adapters.process import job as jobs
from penstock_adapters.process import orphans
from penstock_adapters.process.fork_server import PACKET, ForkServer
from penstock_adapters.process.fork_server_pool import ForkServerPool
from penstock_adapters.process.job import Job, Stage
from penstock_adapters.process.output import Tail
from penstock_adapters.process.reporter import AttemptReporter
from penstock_contracts import fact_codec as codec
from penstock_core.facts import AttemptFinished, AttemptRequested, ErrorInfo, Outcome
from penstock_core.ports import AttemptEnvironment, AttemptEvents, UnavailableError

POLL_INTERVAL = 0.2
"""Seconds between looks at what attempts write and at processes that should be gone."""

_HANDOVER = 60.0
_LINGER = 1.0
_UNKILLABLE = 5.0

_log = logging.getLogger(__name__)


class ProcessExecutor:
    """Implements `penstock_core.ports.Executor`. Make it on the event loop that it shall live on.

    Args:
        executor_id: names this executor in facts.
        events: gets what happens; its methods are called on the event loop.
        home: the state folder; attempts work below `<home>/work`. What dead executors left there is ended first.
        env: environment variables that every attempt gets, such as how to reach the platform.
        grace: seconds between SIGTERM and SIGKILL.
        servers: fork servers that are kept when they have nothing to do.
        idle: seconds after which a fork server with nothing to do is ended.
        import_timeout: seconds that importing a module may take.
        unsafe: whether a project's steps may use formats whose loading can run code; all may by default.
    """

    def __init__(
        self,
        executor_id: str,
        events: AttemptEvents,
        home: Path,
        *,
        env: Mapping[str, str] | None = None,
        grace: float = 5.0,
        servers: int = 8,
        idle: float = 900.0,
        import_timeout: float = 300.0,
        unsafe: Callable[[str], bool] = lambda project: True,
    ) -> None:
        self._reporter = AttemptReporter(executor_id, events)
        self._grace = grace
        self._import_timeout = import_timeout
        self._unsafe = unsafe
        self._loop = asyncio.get_running_loop()
        self._jobs: dict[int, Job] = {}
        self._by_attempt: dict[tuple[str, str, int], Job] = {}
        self._numbers = itertools.count(1)
        self._looking: asyncio.TimerHandle | None = None
        self._closing = False
        self._empty = asyncio.Event()
        home = home.absolute()
        orphans.sweep(home)
        self._work = orphans.WorkFolder(home)
        self._pool = ForkServerPool(self, self._work, env or {}, servers, idle)

    # ------------------------------------------------------------------------------------------------- the port

    async def start(self, attempt: AttemptRequested, where: AttemptEnvironment) -> None:
        """Begin an attempt. It is told `started` once its process is known, and `finished` in any case.

        Raises:
            Unavailable: the executor is closing.
        """
        if self._closing:
            raise UnavailableError("the executor is stopping")
        if (attempt.run_id, attempt.key, attempt.attempt) in self._by_attempt:
            return
        try:
            server = self._pool.get(where, attempt.env)
        except (OSError, ValueError) as error:
            why = f"the interpreter {where.python} cannot be started: {error}"
            self._reporter.finished(
                self._reporter.end(attempt, Outcome.FAILED, ErrorInfo(type="EnvironmentUnusable", message=why))
            )
            return
        job = Job(next(self._numbers), attempt, where, server, since=self._loop.time())
        server.jobs += 1
        self._jobs[job.number] = job
        self._by_attempt[job.name] = job
        if job.module in server.imported:
            self._send(job)
        else:
            self._import(server, job.module)

    async def cancel(self, run_id: str, key: str, attempt: int, reason: str) -> None:
        """End an attempt: SIGTERM, after the grace period SIGKILL, to its whole process group."""
        job = self._by_attempt.get((run_id, key, attempt))
        if job is not None:
            self._stop(job, Outcome.CANCELLED, ErrorInfo(type="Cancelled", message=reason or "cancelled"))

    async def close(self) -> None:
        """End everything that runs, report it lost, and leave no process and no folder behind."""
        if self._closing:
            return
        self._closing = True
        for job in list(self._jobs.values()):
            self._stop(job, Outcome.LOST, ErrorInfo(type="Lost", message="the executor stopped"))
        if self._jobs:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), self._grace + _UNKILLABLE + 2 * _LINGER)
        await self._pool.close()
        if self._looking is not None:
            self._looking.cancel()
        await asyncio.to_thread(self._work.release)

    async def prepare(self, module: str, where: AttemptEnvironment) -> None:
        """Have a module imported now, so that the first attempt need not wait. Errors show with that one."""
        if self._closing:
            return
        with suppress(OSError, ValueError):
            server = self._pool.get(where, {})
            if module not in server.imported:
                self._import(server, module)

    # ----------------------------------------------------------------------------------------------- to a server

    def _import(self, server: ForkServer, module: str) -> None:
        if module in server.importing:
            return
        too_long = self._loop.call_later(self._import_timeout, self._import_took_too_long, server, module)
        server.importing[module] = too_long
        server.send(f"import {module}\n".encode())

    def _send(self, job: Job) -> None:
        where = job.where
        own = {"artifacts": where.artifacts, "limit": where.limit, "checkpoint": where.checkpoint}
        order = orjson.dumps({**own, "unsafe": self._unsafe(job.request.project)})
        body = order[:-1] + b',"attempt":' + codec.encode(job.request) + b"}"
        if len(body) > PACKET - 1000:
            path = job.server.folder / f"{job.number}.request"
            path.write_bytes(body)
            body = b"@" + os.fsencode(path)
        job.stage, job.since = Stage.SENT, self._loop.time()
        job.server.send(f"run {job.number} {job.module}\n".encode() + body)
        self._schedule_poll()

    def _signal(self, job: Job, number: int) -> None:
        if number == signal.SIGKILL and not job.killed:
            job.killed, job.since = True, self._loop.time()
        job.server.send(f"signal {job.number} {int(number)}\n".encode())

    def _stop(self, job: Job, outcome: Outcome, error: ErrorInfo) -> None:
        """End a job for a reason of ours; the first reason counts."""
        if job.why is not None or job.stage is Stage.ENDED:
            return
        job.why = (outcome, error)
        if job.stage is Stage.WAITING:
            self._finish(job, self._reporter.end(job.request, outcome, error))
            self._reaped(job)
        elif job.stage is Stage.RUNNING:
            self._signal(job, signal.SIGTERM)
            job.timers.append(self._loop.call_later(self._grace, self._signal, job, signal.SIGKILL))

    def _timed_out(self, job: Job) -> None:
        why = f"the step ran longer than its timeout of {job.request.timeout:g} s"
        self._stop(job, Outcome.TIMED_OUT, ErrorInfo(type="Timeout", message=why))

    # --------------------------------------------------------------------------------------------- from a server

    def on_message(self, server: ForkServer, sender: int, words: list[str], body: bytes) -> None:
        """A message came. What is malformed, or not from whom it should be, is dropped: a step may have sent it."""
        try:
            kind, subject, *rest = words
            job = self._jobs.get(int(subject)) if kind not in ("imported", "refused") else None
            if sender != (job.pid if job is not None and kind == "result" else server.pid):
                raise ValueError(f"process {sender} may not send this")
            if job is not None and job.server is server:
                self._handle_message(job, kind, rest, body)
            elif kind in ("imported", "refused"):
                self._import_ended(server, subject, body if kind == "refused" else None)
        except ValueError as error:
            _log.warning("a message beside fork server %s is dropped: %s: %.200r", server.pid, error, words)

    def _handle_message(self, job: Job, kind: str, rest: list[str], body: bytes) -> None:
        match kind, rest:
            case "started", [pid, slot]:
                self._started(job, int(pid), slot)
            case "result", [wrote]:
                self._result(job, body, wrote=wrote != "0")
            case "exit", [status]:
                self._exited(job, int(status))
            case "unforked", []:
                why = f"no process could be made for the step: {body.decode(errors='replace')[:500]}"
                self._abort(job, ErrorInfo(type="Lost", message=why))
            case _:
                raise ValueError("it is no message")

    def _import_ended(self, server: ForkServer, module: str, refused: bytes | None) -> None:
        timer = server.importing.pop(module, None)
        if timer is not None:
            timer.cancel()
        waiting = [job for job in self._jobs.values() if job.server is server and job.stage is Stage.WAITING]
        waiting = [job for job in waiting if job.module == module]
        if waiting:
            waiting[0].preface = server.new_log()
        if refused is None:
            server.imported.add(module)
            for job in waiting:
                self._send(job)
            return
        self._pool.retire(server)
        error = jobs.read_error(refused)
        for job in waiting:
            self._abort(job, error, Outcome.FAILED)

    def _import_took_too_long(self, server: ForkServer, module: str) -> None:
        why = f"importing module {module!r} took longer than {self._import_timeout:g} s"
        self._pool.retire(server)
        for job in [j for j in self._jobs.values() if j.server is server and j.stage is Stage.WAITING]:
            self._abort(job, ErrorInfo(type="Timeout", message=why), Outcome.TIMED_OUT)
        server.kill()

    def _started(self, job: Job, pid: int, slot: str) -> None:
        if job.stage not in (Stage.SENT, Stage.RUNNING):
            return
        again = job.stage is Stage.RUNNING  # the first process was killed before it had begun
        job.stage, job.since = Stage.RUNNING, self._loop.time()
        job.pid, job.base = pid, job.server.folder / slot
        job.tail = Tail(str(job.base), job.preface)
        if again:
            return
        job.started_at = time.time()
        self._reporter.started(job)
        if job.why is not None:
            self._signal(job, signal.SIGKILL)
        elif (timeout := job.request.timeout) is not None:
            job.timers.append(self._loop.call_later(timeout, self._timed_out, job))

    def _result(self, job: Job, body: bytes, *, wrote: bool) -> None:
        if job.stage is not Stage.RUNNING or job.base is None:
            return
        fact = self._reporter.reported(job, body)
        if job.why is not None:
            outcome, error = job.why
            fact = replace(fact, outcome=outcome, error=error, outputs={})
        self._finish(job, fact, wrote=wrote)

    def _exited(self, job: Job, status: int) -> None:
        if job.stage is not Stage.ENDED:
            outcome, error = job.why or (
                Outcome.FAILED,
                jobs.crash_error(status, job.request.resources.memory),
            )
            self._finish(job, self._reporter.end(job.request, outcome, error, job.started_at))
        job.dirty = status != 0
        self._reaped(job)

    def on_exit(self, server: ForkServer, code: int) -> None:
        """A fork server's process ended. Its children die with it; what they made is looked for."""
        left = [job for job in self._jobs.values() if job.server is server]
        starting = bool(server.importing) and code not in (-signal.SIGKILL, -signal.SIGTERM)
        said = server.new_log() if left else ""
        for job in left:
            if job.stage is Stage.WAITING and starting:
                self._abort(job, jobs.import_crash_error(job.module, code, said), Outcome.FAILED)
            elif job.pid:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(job.pid, signal.SIGKILL)
        self._pool.retire(server)
        if code == 0:  # it ended its children and theirs before itself
            self._handle_exit(server, code)
            return
        ending = self._loop.run_in_executor(None, orphans.kill_marked, server.mark)
        ending.add_done_callback(lambda _: self._handle_exit(server, code))

    def _handle_exit(self, server: ForkServer, code: int) -> None:
        error = ErrorInfo(type="Lost", message=f"the fork server of the step ended ({jobs.describe_exit(code)})")
        for job in [job for job in self._jobs.values() if job.server is server]:
            self._abort(job, error)
        self._pool.forget(server)

    # ------------------------------------------------------------------------------------------------------ ends

    def _abort(self, job: Job, error: ErrorInfo, outcome: Outcome = Outcome.LOST) -> None:
        """End a job that has no process (any more)."""
        if job.stage is not Stage.ENDED:
            outcome, error = job.why or (outcome, error)
            self._finish(job, self._reporter.end(job.request, outcome, error, job.started_at))
        self._reaped(job)

    def _finish(self, job: Job, fact: AttemptFinished, *, wrote: bool = True) -> None:
        """Take an end; it is told when what the attempt wrote before has been."""
        job.stop_timers()
        job.stage, job.since = Stage.ENDED, self._loop.time()
        if job.tail is None and job.preface:
            job.tail = Tail(str(job.server.folder / "none"), job.preface)
        if job.tail is None or not (wrote or job.preface):
            self._on_reported(job, fact)
        else:
            self._drain(job, job.tail, fact)

    def _drain(self, job: Job, tail: Tail, fact: AttemptFinished) -> None:
        """Read on to the end, a part at a time: other attempts want the loop, too."""
        self._reporter.measured(job, tail.measured(last=True))
        self._reporter.output(job, tail.read(last=True))
        self._reporter.committed(job, tail.committed(last=True))
        if tail.done:
            self._on_reported(job, fact)
        else:
            self._loop.call_soon(self._drain, job, tail, fact)

    def _on_reported(self, job: Job, fact: AttemptFinished) -> None:
        job.end_reported = True
        del self._by_attempt[job.name]
        self._reporter.finished(fact)
        self._clean(job)

    def _reaped(self, job: Job) -> None:
        """No process of the job is left."""
        if self._jobs.pop(job.number, None) is None:
            return
        job.reaped = True
        job.server.jobs -= 1
        self._clean(job)
        self._pool.released(job.server)
        if self._closing and not self._jobs:
            self._empty.set()

    def _clean(self, job: Job) -> None:
        if job.end_reported and job.reaped and job.dirty:
            self._loop.run_in_executor(None, job.clean)

    # ---------------------------------------------------------------------------------------------------- looking

    def _schedule_poll(self) -> None:
        if self._looking is None:
            self._looking = self._loop.call_later(POLL_INTERVAL, self._poll)

    def _poll(self) -> None:
        """Pass on what attempts wrote, and see to processes that should have moved on. Runs only beside jobs."""
        self._looking = None
        now = self._loop.time()
        for job in list(self._jobs.values()):
            age = now - job.since
            if job.killed and age > _UNKILLABLE:
                self._abort(job, ErrorInfo(type="Lost", message="the step's process does not end, even when killed"))
            elif job.stage is Stage.RUNNING and job.tail is not None:
                self._reporter.output(job, job.tail.read())
                self._reporter.measured(job, job.tail.measured())
                self._reporter.committed(job, job.tail.committed())
            elif job.stage is Stage.ENDED and age > _LINGER and not job.killed:
                self._signal(job, signal.SIGKILL)
            elif job.stage is Stage.SENT and age > _HANDOVER:
                _log.warning("fork server %s does not take attempts; it is killed", job.server.pid)
                job.server.kill()
        if self._jobs:
            self._schedule_poll()
