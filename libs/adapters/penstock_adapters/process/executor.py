"""Runs attempts as forked children of fork servers, one server per environment, source folder and `env`.

In: attempts. Out: their starts and ends, reported to `AttemptEvents`, and what they write, given to `AttemptOutbox`;
both are called on the event loop. No user code runs in this process.

Promises: every attempt that was submitted is reported as finished exactly once, whatever it does and whatever is
killed; no process of an attempt outlives it for more than a moment; nothing that an attempt sends can harm another.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import orjson

from penstock_adapters.files.growing_file import tail_of
from penstock_adapters.process import job as jobs
from penstock_adapters.process import orphans, step_user
from penstock_adapters.process.attempt_environment import AttemptEnvironment
from penstock_adapters.process.fork_server import ForkServer
from penstock_adapters.process.fork_server_pool import ForkServerPool
from penstock_adapters.process.job import Job, Stage
from penstock_adapters.process.reporter import AttemptOutbox, AttemptReporter
from penstock_adapters.process.step_user import StepUser
from penstock_contracts import fact_codec as codec
from penstock_core import exhaustion, step_exits
from penstock_core import fork_server_protocol as protocol
from penstock_core.errors import UnavailableError
from penstock_core.facts import AttemptFinished, AttemptRequested, ErrorInfo, Outcome
from penstock_core.ports import AttemptEvents
from penstock_core.shipping.masking import MaskedTail
from penstock_core.shipping.messages import AttemptKey
from penstock_core.shipping.shipper import Shipper

POLL_INTERVAL = 0.2
"""Seconds between polls of the files of attempts, and of processes that should have ended."""

_HANDOVER = 60.0
_LINGER = 1.0
_UNKILLABLE = 5.0

_LEASE_ENDED = "the executor could not renew its lease, so the attempt, which has slots of limits, was ended"

_ABOUT_IMPORTS = (protocol.IMPORTED, protocol.REFUSED, protocol.THREADED)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessOptions:
    """Options of a process executor.

    Attributes:
        env: environment variables of every attempt, such as how to reach the platform.
        grace: seconds between SIGTERM and SIGKILL.
        servers: idle fork servers that are kept.
        idle: seconds after which an idle fork server is ended.
        import_timeout: seconds that importing a module may take.
        user: the user that attempts run as; by default that of this process.
        unsafe: whether a project's steps may use formats whose loading can run code; all may by default.
    """

    env: Mapping[str, str] = field(default_factory=dict[str, str])
    grace: float = 5.0
    servers: int = 8
    idle: float = 900.0
    import_timeout: float = 300.0
    unsafe: Callable[[str], bool] = lambda project: True
    user: StepUser | None = None


class ProcessExecutor:
    """Implements `penstock_core.ports.Executor`. Create it on the event loop that it runs on.

    Args:
        executor_id: name of this executor in facts.
        events: gets starts and ends.
        outbox: gets what attempts write.
        prepare: prepares the environment of an attempt: source, interpreter, inputs and checkpoint on this machine. It
            raises `UnavailableError` where trying again may help, and another `PenstockError` where it does not.
        home: the state folder; attempts work below `<home>/work`. What dead executors left there is removed first.
        options: the options.
        own: called when everything but the process is there; it raises a `PenstockError` if the attempt must not start.
    """

    durable = False

    def __init__(
        self,
        executor_id: str,
        events: AttemptEvents,
        outbox: AttemptOutbox,
        prepare: Callable[[AttemptRequested], Awaitable[AttemptEnvironment]],
        home: Path,
        options: ProcessOptions | None = None,
        own: Callable[[AttemptRequested], Awaitable[None]] | None = None,
    ) -> None:
        self._id = executor_id
        self._reporter = AttemptReporter(executor_id, events, outbox)
        self._prepare = prepare
        self._own = own
        self._deadline = math.inf
        self._options = options or ProcessOptions()
        self._loop = asyncio.get_running_loop()
        self._jobs: dict[int, Job] = {}
        self._by_attempt: dict[AttemptKey, Job] = {}
        self._cancelled_while_preparing: dict[AttemptKey, str | None] = {}
        self._numbers = itertools.count(1)
        self._poll_timer: asyncio.TimerHandle | None = None
        self._isolated: set[tuple[str, str]] = set()
        self._closing = False
        self._empty = asyncio.Event()
        home = home.absolute()
        orphans.sweep(home)
        user = self._options.user
        if user is not None:
            step_user.share(home, user)
        self._work = orphans.WorkFolder(home)
        if user is not None:
            step_user.pass_through(self._work.path, user)
        self._pool = ForkServerPool(
            self, self._work, self._options.env, self._options.servers, self._options.idle, user
        )

    # ------------------------------------------------------------------------------------------------- the port

    async def submit(self, attempt: AttemptRequested) -> None:
        """See the port."""
        name = (attempt.run_id, attempt.key, attempt.attempt)
        if name in self._by_attempt or name in self._cancelled_while_preparing:
            return
        self._check_open()
        submitted_at = time.time()
        self._cancelled_while_preparing[name] = None
        try:
            where = await self._prepare(attempt)
            if self._own is not None and name not in self._by_attempt:
                await self._own(attempt)
        finally:
            cancelled = self._cancelled_while_preparing.pop(name)
        self._check_open()
        if cancelled is not None:
            error = ErrorInfo(type="Cancelled", message=cancelled)
            self._reporter.finished(self._reporter.end(attempt, Outcome.CANCELLED, error))
            return
        self._start(attempt, where, submitted_at)

    def _check_open(self) -> None:
        if self._closing:
            raise UnavailableError("the executor is stopping")

    def _start(self, attempt: AttemptRequested, where: AttemptEnvironment, submitted_at: float) -> None:
        try:
            server = self._pool.get(where, attempt.env)
        except (OSError, ValueError) as error:
            if exhaustion.is_exhaustion(error):
                raise UnavailableError(f"no process can be created for the step: {error}") from error
            why = f"the interpreter {where.python} cannot be started: {error}"
            self._reporter.finished(
                self._reporter.end(attempt, Outcome.FAILED, ErrorInfo(type="EnvironmentUnusable", message=why))
            )
            return
        job = Job(next(self._numbers), attempt, where, server, since=self._loop.time(), submitted_at=submitted_at)
        server.jobs += 1
        self._jobs[job.number] = job
        self._by_attempt[job.name] = job
        if job.module in server.imported:
            self._send(job)
        else:
            self._import(server, job.module)

    async def cancel(self, run_id: str, key: str, attempt: int, reason: str) -> None:
        """See the port. Signals go to the whole process group."""
        name = (run_id, key, attempt)
        reason = reason or "cancelled"
        if name in self._cancelled_while_preparing:
            self._cancelled_while_preparing[name] = reason
        if (job := self._by_attempt.get(name)) is not None:
            self._stop(job, Outcome.CANCELLED, ErrorInfo(type="Cancelled", message=reason))

    @property
    def mark(self) -> str:
        """What marks the processes of its attempts, see `orphans`."""
        return self._work.mark

    def extend(self, deadline: float) -> None:
        """Let attempts with slots of limits run until `deadline`, in seconds of the machine's boot clock.

        Their fork servers kill them then, also if this process is stopped.
        """
        self._deadline = deadline
        for job in self._jobs.values():
            if job.request.limited and job.stage in (Stage.SENT, Stage.RUNNING):
                self._send_deadline(job)

    def end_limited(self) -> None:
        """End the attempts with slots of limits: others may have these slots now."""
        for job in [job for job in self._jobs.values() if job.request.limited]:
            self._stop(job, Outcome.LOST, ErrorInfo(type="Lost", message=_LEASE_ENDED))
            if job.stage is Stage.RUNNING:
                self._signal(job, signal.SIGKILL)

    def _send_deadline(self, job: Job) -> None:
        if job.request.limited and self._deadline != math.inf:
            job.server.send(protocol.encode(protocol.LEASE, job.number, self._deadline))

    async def close(self) -> None:
        """End all attempts, report them as lost, and leave no process and no folder behind."""
        if self._closing:
            return
        self._closing = True
        for job in list(self._jobs.values()):
            self._stop(job, Outcome.LOST, ErrorInfo(type="Lost", message="the executor stopped"))
        if self._jobs:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), self._options.grace + _UNKILLABLE + 2 * _LINGER)
        await self._pool.close()
        if self._poll_timer is not None:
            self._poll_timer.cancel()
        await asyncio.to_thread(self._work.release)

    async def preload(self, module: str, where: AttemptEnvironment) -> None:
        """Import a module now, so that the first attempt need not wait. An error is reported with that one."""
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
        timer = self._loop.call_later(self._options.import_timeout, self._import_timed_out, server, module)
        server.importing[module] = timer
        isolated = (server.source, module) in self._isolated
        server.send(protocol.encode(protocol.ISOLATE if isolated else protocol.IMPORT, module))

    def _send(self, job: Job) -> None:
        where = job.where
        own: dict[str, object] = {"artifacts": where.artifacts, "limit": where.limit, "checkpoint": where.checkpoint}
        if where.serve is not None:
            served = {"pipeline": where.serve.pipeline, "inputs": where.serve.inputs, "executor": self._id}
            own["serve"] = served
        order = orjson.dumps({**own, "unsafe": self._options.unsafe(job.request.project)})
        order = order[:-1] + b',"attempt":' + codec.encode(job.request) + b"}"
        body = protocol.order_body(order, where.secrets.encoded(), lambda large: self._write_order(job, large))
        job.stage, job.since = Stage.SENT, self._loop.time()
        channel = where.serve.channel if where.serve is not None else None
        job.server.send(protocol.encode(protocol.RUN, job.number, job.module, body=body), channel)
        self._send_deadline(job)
        self._schedule_poll()

    def _write_order(self, job: Job, order: bytes) -> bytes:
        path = job.server.folder / f"{job.number}.request"
        path.write_bytes(order)
        if self._options.user is not None:
            os.chown(path, self._options.user.uid, self._options.user.gid)
        return os.fsencode(path)

    def _signal(self, job: Job, number: int) -> None:
        if number == signal.SIGKILL and not job.killed:
            job.killed, job.since = True, self._loop.time()
        job.server.send(protocol.encode(protocol.SIGNAL, job.number, int(number)))

    def _stop(self, job: Job, outcome: Outcome, error: ErrorInfo) -> None:
        """End a job for a reason of the executor; the first reason counts."""
        if job.reason is not None or job.stage is Stage.ENDED:
            return
        job.reason = (outcome, error)
        if job.stage is Stage.WAITING:
            self._finish(job, self._reporter.end(job.request, outcome, error))
            self._reaped(job)
        elif job.stage is Stage.RUNNING:
            self._signal(job, signal.SIGTERM)
            job.timers.append(self._loop.call_later(self._options.grace, self._signal, job, signal.SIGKILL))

    def _timed_out(self, job: Job) -> None:
        why = f"the step ran longer than its timeout of {job.request.timeout:g} s"
        self._stop(job, Outcome.TIMED_OUT, ErrorInfo(type="Timeout", message=why))

    # --------------------------------------------------------------------------------------------- from a server

    def on_message(self, server: ForkServer, sender: int, words: list[str], body: bytes) -> None:
        """Handle a message. One that is malformed, or from the wrong process, is dropped: a step may have sent it."""
        try:
            kind, subject, *rest = words
            job = self._jobs.get(int(subject)) if kind not in _ABOUT_IMPORTS else None
            if sender != (job.pid if job is not None and kind == protocol.RESULT else server.pid):
                raise ValueError(f"process {sender} is not a child process of this executor")
            if job is not None and job.server is server:
                self._handle_message(job, kind, rest, body)
            elif kind == protocol.THREADED:
                self._isolate(server, subject, body.decode(errors="replace"))
            elif kind in _ABOUT_IMPORTS:
                self._import_ended(server, subject, body if kind == protocol.REFUSED else None)
        except ValueError as error:
            _log.warning("dropped a message on the socket of fork server %s: %s: %.200r", server.pid, error, words)

    def _handle_message(self, job: Job, kind: str, rest: list[str], body: bytes) -> None:
        match kind, rest:
            case protocol.STARTED, [pid, slot]:
                self._started(job, int(pid), slot)
            case protocol.RESULT, [wrote]:
                self._result(job, body, wrote=wrote != "0")
            case protocol.EXIT, [status, expired]:
                if expired == "1":
                    job.reason = job.reason or (Outcome.LOST, ErrorInfo(type="Lost", message=_LEASE_ENDED))
                self._exited(job, int(status))
            case protocol.UNFORKED, []:
                why = f"no process could be created for the step: {body.decode(errors='replace')[:500]}"
                self._abort(job, ErrorInfo(type=exhaustion.OUT_OF_RESOURCES, message=why))
            case _:
                raise ValueError("unknown message")

    def _import_ended(self, server: ForkServer, module: str, refused: bytes | None) -> None:
        timer = server.importing.pop(module, None)
        if timer is not None:
            timer.cancel()
        waiting = [job for job in self._jobs.values() if job.server is server and job.stage is Stage.WAITING]
        waiting = [job for job in waiting if job.module == module]
        if waiting:
            waiting[0].preface += server.new_log()
        if refused is None:
            server.imported.add(module)
            for job in waiting:
                self._send(job)
            return
        self._pool.retire(server)
        error = jobs.read_error(refused)
        outcome = Outcome.LOST if error.type == exhaustion.OUT_OF_RESOURCES else Outcome.FAILED
        for job in waiting:
            self._abort(job, error, outcome)

    def _isolate(self, server: ForkServer, module: str, threads: str) -> None:
        """Move the attempts of a module that starts threads at import to a server that leaves the import to them."""
        if (timer := server.importing.pop(module, None)) is not None:
            timer.cancel()
        self._isolated.add((server.source, module))
        self._pool.retire(server)
        waiting = [job for job in self._jobs.values() if job.server is server and job.stage is Stage.WAITING]
        for job in waiting:
            self._reaped(job)
            self._by_attempt.pop(job.name)
            self._start(job.request, job.where, job.submitted_at)
        note = (
            f"[penstock] importing module {module!r} starts the thread {threads[:500]}: each attempt imports the "
            "module by itself, which takes longer. Start threads in a step instead\n"
        )
        moved = [self._by_attempt[job.name] for job in waiting if job.name in self._by_attempt]
        for job in moved:
            if job.module == module:
                job.preface = note

    def _import_timed_out(self, server: ForkServer, module: str) -> None:
        why = f"importing module {module!r} took longer than {self._options.import_timeout:g} s"
        self._pool.retire(server)
        for job in [j for j in self._jobs.values() if j.server is server and j.stage is Stage.WAITING]:
            self._abort(job, ErrorInfo(type="Timeout", message=why), Outcome.TIMED_OUT)
        server.kill()

    def _started(self, job: Job, pid: int, slot: str) -> None:
        if job.stage not in (Stage.SENT, Stage.RUNNING):
            return
        replaced = job.stage is Stage.RUNNING  # the first process was killed before it had begun
        job.stage, job.since = Stage.RUNNING, self._loop.time()
        job.pid, job.base = pid, job.server.folder / slot
        job.shipper = self._shipper(job, str(job.base))
        if replaced:
            return
        job.started_at = time.time()
        self._reporter.started(job)
        if job.reason is not None:
            self._signal(job, signal.SIGKILL)
        elif (timeout := job.request.timeout) is not None:
            job.timers.append(self._loop.call_later(timeout, self._timed_out, job))

    def _result(self, job: Job, body: bytes, *, wrote: bool) -> None:
        if job.stage is not Stage.RUNNING or job.base is None:
            return
        fact = self._reporter.reported(job, body)
        if job.reason is not None:
            outcome, error = job.reason
            fact = replace(fact, outcome=outcome, error=error, outputs={})
        self._finish(job, fact, wrote=wrote)

    def _exited(self, job: Job, status: int) -> None:
        if job.stage is not Stage.ENDED:
            outcome, error = job.reason or (
                Outcome.FAILED,
                step_exits.crash_error(os.waitstatus_to_exitcode(status), job.request.resources.memory),
            )
            self._finish(job, self._reporter.end(job.request, outcome, error, job.started_at))
        job.dirty = status != 0
        self._reaped(job)

    def on_exit(self, server: ForkServer, code: int) -> None:
        """Handle the end of a fork server. Its children die with it; their descendants are looked for."""
        left = [job for job in self._jobs.values() if job.server is server]
        starting = bool(server.importing) and code not in (-signal.SIGKILL, -signal.SIGTERM)
        output = server.new_log() if left else ""
        for job in left:
            if job.stage is Stage.WAITING and starting:
                self._abort(job, step_exits.import_crash_error(job.module, code, output), Outcome.FAILED)
            elif job.pid:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(job.pid, signal.SIGKILL)
        self._pool.retire(server)
        if code == 0:  # it killed its children and their descendants before it exited
            self._handle_exit(server, code)
            return
        ending = self._loop.run_in_executor(None, orphans.kill_marked, server.mark)
        ending.add_done_callback(lambda _: self._handle_exit(server, code))

    def _handle_exit(self, server: ForkServer, code: int) -> None:
        error = ErrorInfo(type="Lost", message=f"the fork server of the step ended ({step_exits.describe_exit(code)})")
        for job in [job for job in self._jobs.values() if job.server is server]:
            self._abort(job, error)
        self._pool.forget(server)

    # ------------------------------------------------------------------------------------------------------ ends

    def _abort(self, job: Job, error: ErrorInfo, outcome: Outcome = Outcome.LOST) -> None:
        """End a job that has no process, or none any more."""
        if job.stage is not Stage.ENDED:
            outcome, error = job.reason or (outcome, error)
            self._finish(job, self._reporter.end(job.request, outcome, error, job.started_at))
        self._reaped(job)

    def _finish(self, job: Job, fact: AttemptFinished, *, wrote: bool = True) -> None:
        """Accept an end; it is reported after everything that the attempt wrote has been shipped."""
        job.stop_timers()
        job.stage, job.since = Stage.ENDED, self._loop.time()
        if job.shipper is None and job.preface:
            job.shipper = self._shipper(job, str(job.server.folder / "none"))
        if job.shipper is None or not (wrote or job.preface):
            self._on_reported(job, fact)
        else:
            self._drain(job, job.shipper, fact)

    def _shipper(self, job: Job, base: str) -> Shipper:
        tail = tail_of(base, job.preface)
        secrets = job.where.secrets
        return Shipper(job.name, MaskedTail(tail, secrets.masker) if secrets else tail, self._reporter)

    def _drain(self, job: Job, shipper: Shipper, fact: AttemptFinished) -> None:
        """Ship the rest, a part at a time: other attempts need the loop, too."""
        if shipper.poll(last=True):
            self._on_reported(job, fact)
        else:
            self._loop.call_soon(self._drain, job, shipper, fact)

    def _on_reported(self, job: Job, fact: AttemptFinished) -> None:
        if job.request.limited and not job.reaped:
            job.end = fact  # reported when no process is left: then its slots are granted to others
            return
        job.end_reported = True
        del self._by_attempt[job.name]
        self._reporter.finished(fact)
        self._clean(job)

    def _reaped(self, job: Job) -> None:
        """Note that no process of the job is left."""
        if self._jobs.pop(job.number, None) is None:
            return
        job.reaped = True
        job.server.jobs -= 1
        if job.end is not None:
            self._on_reported(job, job.end)
        else:
            self._clean(job)
        self._pool.released(job.server)
        if self._closing and not self._jobs:
            self._empty.set()

    def _clean(self, job: Job) -> None:
        if job.end_reported and job.reaped and job.dirty:
            self._loop.run_in_executor(None, job.clean)

    # ----------------------------------------------------------------------------------------------------- polls

    def _schedule_poll(self) -> None:
        if self._poll_timer is None:
            self._poll_timer = self._loop.call_later(POLL_INTERVAL, self._poll)

    def _poll(self) -> None:
        """Ship what attempts wrote, and kill processes that are stuck. Runs only while there are jobs."""
        self._poll_timer = None
        now = self._loop.time()
        for job in list(self._jobs.values()):
            age = now - job.since
            if job.killed and age > _UNKILLABLE and not job.request.limited:
                self._abort(
                    job, ErrorInfo(type="Lost", message="the step's process does not end although it was killed")
                )
            elif job.stage is Stage.RUNNING and job.shipper is not None:
                job.shipper.poll()
            elif job.stage is Stage.ENDED and age > _LINGER and not job.killed:
                self._signal(job, signal.SIGKILL)
            elif job.stage is Stage.SENT and age > _HANDOVER:
                _log.warning("fork server %s does not accept attempts; killing it", job.server.pid)
                job.server.kill()
        if self._jobs:
            self._schedule_poll()
