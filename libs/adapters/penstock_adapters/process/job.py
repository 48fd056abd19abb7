"""An attempt of the process executor."""

from __future__ import annotations

import asyncio
import shutil
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


def read_error(body: bytes) -> ErrorInfo:
    """Read the `ErrorInfo` that a fork server sent as JSON."""
    try:
        return _ERROR.validate_json(body)
    except pydantic.ValidationError as error:
        return ErrorInfo(type="BadResult", message=f"unreadable error: {error.title}")
