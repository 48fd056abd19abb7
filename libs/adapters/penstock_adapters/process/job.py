"""An attempt of the process executor, and the errors that its process can end with."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

import pydantic

from penstock_adapters.process.attempt_environment import AttemptEnvironment
from penstock_adapters.process.fork_server import ForkServer
from penstock_core import fork_server_protocol as protocol
from penstock_core.facts import AttemptFinished, AttemptRequested, ErrorInfo, Outcome
from penstock_core.shipping.shipper import Shipper

_CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE)
_ERROR = pydantic.TypeAdapter(ErrorInfo)


class Stage(Enum):
    """Progress of a job. `ENDED`: its end is reported or about to be (`end`); its process may not be reaped yet."""

    WAITING = auto()
    SENT = auto()
    RUNNING = auto()
    ENDED = auto()


@dataclass(slots=True, eq=False)
class Job:
    """An attempt.

    Attributes:
        reason: set once the executor itself ends it.
        since: the loop's time of the last stage.
        submitted_at: when the executor began with it, in Unix seconds.
    """

    number: int
    request: AttemptRequested
    where: AttemptEnvironment
    server: ForkServer
    stage: Stage = Stage.WAITING
    since: float = 0.0
    submitted_at: float = 0.0
    pid: int = 0
    started_at: float = 0.0
    base: Path | None = None
    shipper: Shipper | None = None
    preface: str = ""
    reason: tuple[Outcome, ErrorInfo] | None = None
    killed: bool = False
    dirty: bool = True
    end: AttemptFinished | None = None
    end_reported: bool = False
    reaped: bool = False
    timers: list[asyncio.TimerHandle] = field(default_factory=list[asyncio.TimerHandle])

    @property
    def name(self) -> tuple[str, str, int]:
        """Run, step and number of the attempt."""
        return self.request.run_id, self.request.key, self.request.attempt

    @property
    def module(self) -> str:
        """The module that defines the step."""
        return self.request.entrypoint.partition(":")[0]

    def stop_timers(self) -> None:
        """Cancel all timers."""
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()

    def clean(self) -> None:
        """Remove its files. Blocking: not for the event loop."""
        if self.base is None:
            return
        shutil.rmtree(self.base, ignore_errors=True)
        for suffix in protocol.SUFFIXES:
            with suppress(OSError):
                Path(f"{self.base}.{suffix}").unlink()


def crash_error(status: int, memory: int | None) -> ErrorInfo:
    """The error of a process that ended without a result, from its wait status."""
    code = os.waitstatus_to_exitcode(status)
    limited = f"; its memory limit was {memory / 2**20:.0f} MiB" if memory is not None else ""
    if code >= 0:
        why = f"the step's process called exit with code {code} before the step returned{limited}"
        return ErrorInfo(type="Exit", message=why)
    hint = ""
    if code == -signal.SIGKILL:
        hint = "; unless somebody killed it, the machine has run out of memory"
    elif -code in _CRASHES:
        hint = "; native code crashed; the step's output may show the Python stack"
    return ErrorInfo(type="Signal", message=f"the step's process was {describe_exit(code)}{hint}{limited}")


def import_crash_error(module: str, code: int, output: str) -> ErrorInfo:
    """The error of a fork server that ended while it imported the user's module and printed `output`."""
    lines = output.strip().splitlines()
    last = f": {lines[-1][:500]}" if lines else ""
    why = f"importing module {module!r} ended the process ({describe_exit(code)}){last}"
    return ErrorInfo(type="ImportCrash", message=why, traceback=output)


def describe_exit(code: int) -> str:
    """Describe an exit code, such as `killed by signal 9 (SIGKILL)`."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"killed by signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"killed by signal {-code}"


def read_error(body: bytes) -> ErrorInfo:
    """Read the `ErrorInfo` that a fork server sent as JSON."""
    try:
        return _ERROR.validate_json(body)
    except pydantic.ValidationError as error:
        return ErrorInfo(type="BadResult", message=f"unreadable error: {error.title}")
