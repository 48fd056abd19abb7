"""The fork server: imports the user's module once and forks a child for each attempt.

    python -P -m penstock.runner.forkserver FD PARENT SOURCE WORK

It is single-threaded and runs none of the user's functions itself, it only imports. One spare child is always ready, so
that no attempt waits for a fork. When the executor's end of the socket closes, every attempt is killed with all its
descendants, and the fork server exits. The messages are those of `penstock_core.fork_server_protocol`.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import math
import os
import resource
import selectors
import signal
import socket
import sys
import threading
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.runner import breakpoints, child, error_info, linux, seeds
from penstock_core import exhaustion
from penstock_core import fork_server_protocol as protocol

_STOP_LIMIT = 2.0
"""Seconds to wait at the end for killed processes to be gone."""

_HELPERS = {
    "pandas": ("penstock.serialize.pandas_tables", "pyarrow.parquet", "pyarrow.dataset", "pyarrow.pandas_compat"),
    "polars": ("penstock.serialize.parquet_tables",),
    "pyarrow": ("penstock.serialize.parquet_tables", "pyarrow.parquet", "pyarrow.dataset"),
    "numpy": ("penstock.serialize.arrays",),
    "scipy.sparse": ("penstock.serialize.arrays",),
    "matplotlib.figure": ("penstock.serialize.images", "matplotlib.backends.backend_agg"),
    "plotly": ("penstock.serialize.images", "plotly.io"),
    "PIL.Image": ("penstock.serialize.images", "PIL.PngImagePlugin", "PIL.TiffImagePlugin"),
    "torch": ("penstock.serialize.tensors", "safetensors.torch"),
}
"""Modules that saving and loading objects of a library imports lazily. They start no threads when imported."""

_NO_FORK = 0.05
"""Seconds to wait after the kernel refused a fork."""


@dataclass(slots=True)
class Child:
    """A child process. `number` is that of its attempt; None while it is spare, and for an adopted orphan.

    It is killed at its `deadline`, in seconds of the machine's boot clock.
    """

    pid: int
    pidfd: int
    orders: socket.socket | None
    slot: str = ""
    number: str | None = None
    deadline: float = math.inf
    expired: bool = False

    def signal(self, number: int) -> None:
        """Signal the whole process group. Its id cannot have been reused: the leader is not reaped yet."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)
            return
        with suppress(ProcessLookupError):  # not yet a group leader
            os.kill(self.pid, number)


class ForkServer:
    """Serves one executor over `link` until it closes the socket."""

    def __init__(self, link: socket.socket, parent: int, source: str, work: str) -> None:
        self._link = link
        self._parent = parent
        self._source = source
        self._work = work
        self._pid = os.getpid()
        self._selector = selectors.DefaultSelector()
        self._children: dict[int, Child] = {}
        self._running: dict[str, Child] = {}
        self._spare: Child | None = None
        self._count = 0
        self._open = True
        self._ready = False
        self._kept: set[int] = set()
        self._orphans: set[int] = set()
        self._exits: list[tuple[str, int, int]] = []

    def serve(self) -> None:
        """Serve until the executor's end of the link closes, then kill everything."""
        self._selector.register(self._link, selectors.EVENT_READ, self._read)
        while self._open:
            no_spare = self._spare is None and self._ready
            happened = self._selector.select(0 if no_spare else self._until_deadline())
            for key, _ in happened:
                key.data()
            if no_spare and not happened:
                # A child that was just handed its attempt waits for this very processor: the kernel wakes the reader
                # of a socket where its writer runs. It goes first; measured, that halves the time until it begins.
                os.sched_yield()
                try:
                    self._spare = self._fork()
                except OSError:  # the next attempt tries again, and reports it
                    time.sleep(_NO_FORK)
        self._stop()

    def _until_deadline(self) -> float | None:
        """Kill the attempts whose deadline has come; returns the seconds until the next one."""
        if all(one.deadline == math.inf for one in self._running.values()):
            return None
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        for one in self._running.values():
            if one.deadline <= now:
                one.deadline, one.expired = math.inf, True
                one.signal(signal.SIGKILL)
        soonest = min((one.deadline for one in self._running.values()), default=math.inf)
        return None if soonest == math.inf else max(0.0, soonest - now)

    # ----------------------------------------------------------------------------------------------- the executor

    def _read(self) -> None:
        try:
            message, descriptors = child.receive(self._link, child.DO_NOT_WAIT)
        except BlockingIOError:
            return
        except OSError:
            message, descriptors = b"", []
        if not message:
            self._open = False
            return
        try:
            self._obey(message, descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _obey(self, message: bytes, descriptors: list[int]) -> None:
        words, _ = protocol.decode(message)
        match words:
            case [protocol.RUN, number, _]:
                self._run(number, message, descriptors)
            case [protocol.SIGNAL, number, signum]:
                if (running := self._running.get(number)) is not None:
                    running.signal(int(signum))
            case [protocol.LEASE, number, deadline]:
                if (running := self._running.get(number)) is not None:
                    running.deadline = float(deadline)
            case [protocol.IMPORT, module]:
                self._import(module)
            case [protocol.ISOLATE, module]:
                self._ready = True
                self._send(protocol.IMPORTED, module, os.fstat(1).st_size)
            case _:
                return

    def _send(self, kind: str, *words: object, body: bytes = b"") -> None:
        try:
            self._link.sendall(protocol.encode(kind, *words, body=body))
        except OSError:
            self._open = False

    def _import(self, module: str) -> None:
        # A long import cannot notice that the executor exits; the kernel does.
        linux.die_with_parent(self._parent)
        try:
            with seeds.watch_seeding():
                __import__(module)  # unlike importlib's function it leaves no frame in the user's traceback
            imported = sys.modules[module]
            _check_origin(module, imported, self._source)
            _check_threads(module)
            _warm(imported)
        except BaseException as error:
            info = error_info.describe(error)
            if exhaustion.is_exhaustion(error):
                info["type"] = exhaustion.OUT_OF_RESOURCES
            if isinstance(error, SystemExit):
                info["message"] = f"module {module!r} called exit with code {error.code} while it was imported"
            self._send(protocol.REFUSED, module, body=json.dumps(info).encode())
            return
        finally:
            linux.outlive_parent()
            for stream in (sys.stdout, sys.stderr):
                with suppress(Exception):
                    stream.flush()
            linux.flush_c_streams()
        if threads := [one.name for one in threading.enumerate() if one is not threading.main_thread()]:
            names = ", ".join(map(repr, threads[:5]))
            self._send(protocol.THREADED, module, body=names.encode(errors="replace"))
            return
        gc.collect()
        gc.freeze()  # imported objects stay; collecting garbage among them in each child would copy their pages
        self._kept.update(linux.children())
        if self._spare is not None:
            self._spare.signal(signal.SIGKILL)  # it lacks the module
        self._spare = None
        self._ready = True
        self._send(protocol.IMPORTED, module, os.fstat(1).st_size)

    # ------------------------------------------------------------------------------------------------ the children

    def _run(self, number: str, message: bytes, descriptors: list[int]) -> None:
        for _ in range(3):
            try:
                taker = self._spare or self._fork()
            except OSError as error:
                self._send(protocol.UNFORKED, number, body=str(error).encode())
                return
            self._spare = None
            assert taker.orders is not None  # noqa: S101
            # Sent first: the child's own messages must not come before it.
            self._send(protocol.STARTED, number, taker.pid, taker.slot)
            taker.number = number
            self._running[number] = taker
            with taker.orders:
                try:
                    socket.send_fds(taker.orders, [message], descriptors)
                    return
                except OSError:  # someone killed it while it waited
                    taker.number = None
                    del self._running[number]
        self._send(protocol.UNFORKED, number, body=b"its process was killed before it began")

    def _fork(self) -> Child:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._count += 1
        slot = str(self._count)
        pid = os.fork()
        if pid == 0:
            ours.close()
            child.run_child(self._pid, theirs, self._link, f"{self._work}/{slot}")
        theirs.close()
        return self._watch(pid, ours, slot)

    def _watch(self, pid: int, orders: socket.socket | None, slot: str = "") -> Child:
        try:
            made = Child(pid, os.pidfd_open(pid), orders, slot)
        except OSError:  # out of file descriptors: without one, its end would not be seen
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        self._children[pid] = made
        self._selector.register(made.pidfd, selectors.EVENT_READ, lambda: self._ended(made))
        return made

    def _ended(self, ended: Child) -> None:
        # The zombie still holds its process id and with it the group's: what is left of the group dies now.
        with suppress(ProcessLookupError):
            os.killpg(ended.pid, signal.SIGKILL)
        _, status = os.waitpid(ended.pid, 0)
        self._selector.unregister(ended.pidfd)
        os.close(ended.pidfd)
        del self._children[ended.pid]
        if ended is self._spare:
            self._spare = None
        if ended.orders is not None:
            ended.orders.close()
        self._orphans.discard(ended.pid)
        self._kill_orphans()
        if ended.number is not None:
            del self._running[ended.number]
            self._exits.append((ended.number, status, int(ended.expired)))
        if not self._orphans:  # nothing is left of the attempts that ended
            for words in self._exits:
                self._send(protocol.EXIT, *words)
            self._exits.clear()

    def _kill_orphans(self) -> None:
        """Kill processes that an ended attempt left behind in other sessions: this server has adopted them."""
        for pid in linux.children():
            if pid not in self._children and pid not in self._kept:
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
                    self._watch(pid, None)
                    self._orphans.add(pid)

    def _stop(self) -> None:
        deadline = time.monotonic() + _STOP_LIMIT
        for running in list(self._children.values()):
            running.signal(signal.SIGKILL)
        while self._children and time.monotonic() < deadline:
            for key, _ in self._selector.select(timeout=0.1):
                if key.fileobj is not self._link:
                    key.data()


def _check_origin(module: str, imported: Any, source: str) -> None:
    """A module that the pipeline has a file for must be that file, not another module of this name."""
    stem = Path(source, *module.split("."))
    origin = getattr(imported, "__file__", None) or "part of Python"
    for own in (stem.with_suffix(".py"), stem / "__init__.py"):
        if own.exists() and not (Path(origin).exists() and own.samefile(origin)):
            raise ImportError(
                f"module {module!r} is {origin}, which shadows the pipeline's {own.name}: rename your file"
            )


def _check_threads(module: str) -> None:
    """Refuse running polars threads: a forked child lacks them, and its next query would wait for them forever."""
    if "polars" in sys.modules and linux.has_threads("polars-0"):
        raise ImportError(
            f"module {module!r} runs a polars query while it is imported, and polars hangs in forked processes: "
            "move the query into a step or a function"
        )


def _warm(module: Any) -> None:
    """Do once what each child would repeat: import the modules that save values, and evaluate the steps' type hints."""
    for library, helpers in _HELPERS.items():
        for helper in helpers if library in sys.modules else ():
            with suppress(ImportError):
                __import__(helper)
    for thing in list(vars(module).values()):
        if hasattr(thing, "split") and hasattr(thing, "function"):
            with suppress(Exception):  # an error of a step is reported when that step runs
                _ = (thing.hints, thing.outputs)


def main() -> None:
    """Run the fork server with the arguments of the command line."""
    descriptor, parent, source, work = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    linux.die_with_parent(parent)
    linux.adopt_orphans()
    linux.raise_oom_score()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()  # a crash in native code shows the Python stack in the attempt's output
    # Python ≥ 3.12 warns of forks beside threads; the only threads here are idle pools of libraries that know forks.
    warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    sys.path.insert(0, source)
    sys.argv = [""]
    breakpoints.refuse()
    link = socket.socket(fileno=descriptor)
    link.set_inheritable(False)
    linux.outlive_parent()
    ForkServer(link, parent, source, work).serve()


if __name__ == "__main__":
    main()
