"""A reader at a terminal: one command after the other in one folder, some of them kept running.

What a command changes of its environment and working folder holds for the next one. Fixed ports are replaced by free
ones, the same one each time, so that pages may name ports and tests may run side by side; `ports` says which.
`stand_ins` are further texts of pages with what they stand for.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from penstock_testkit.docs import pages
from penstock_testkit.servers.ports import free_ports

USER = "/home/ada/project"
"""The folder that pages show in the place of the real one."""

_PORT = re.compile(r"(?P<before>127\.0\.0\.1:|--port |_PORT=|-s3\.port=)(?P<port>[1-9]\d{3,4})\b")
_SAVE = 'code=$?; export -p > "{state}.env"; pwd > "{state}.cwd"; exit $code'


class BackgroundCommand:
    """A command that goes on, with what it has printed."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, folder: Path) -> None:
        self._process = process
        self._log = log
        self._folder = folder

    def output(self) -> str:
        """What it has printed so far, as pages show it."""
        return self._log.read_text(errors="replace").replace(str(self._folder), USER)

    def wait_for_lines(self, shown: tuple[str, ...], timeout: float = 40.0) -> list[str]:
        """Wait until it has printed the lines; returns those that do not come."""
        deadline = time.monotonic() + timeout
        while lacking := pages.missing(shown, self.output()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                return lacking
            time.sleep(0.02)
        return []

    def interrupt(self, timeout: float = 20.0) -> int:
        """Press Ctrl-C and wait for the end; returns the exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


class Shell:
    """A terminal in `folder`, with the commands of this environment first on the path."""

    def __init__(self, folder: Path, stand_ins: Mapping[str, str] | None = None) -> None:
        self.folder = folder / "project"
        self.folder.mkdir(parents=True)
        self._state = folder / "state"
        self._background: list[BackgroundCommand] = []
        self._stand_ins = dict(stand_ins or {})
        self.ports: dict[str, str] = {}
        """Which free port is in the place of a fixed one."""
        self._last = 0
        self._env = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "TERM": "dumb",
            "COLUMNS": "140",
            "PENSTOCK_ACK_WAIT": "1.5",  # what a killed platform ran is tried again sooner
        }

    def substitute(self, text: str) -> str:
        """A text with free ports in the place of fixed ones, and everything else that pages let stand for something."""
        for text_of_page, substitute in self._stand_ins.items():
            text = text.replace(text_of_page, substitute)
        return _PORT.sub(lambda found: found["before"] + self._free(found["port"]), text)

    def _free(self, port: str) -> str:
        if port not in self.ports:
            self.ports[port] = str(free_ports(1)[0])
        return self.ports[port]

    def has(self, variable: str) -> bool:
        """Whether an environment variable was exported."""
        saved = self._state.with_suffix(".env")
        return saved.exists() and f" {variable}=" in saved.read_text()

    def write(self, name: str, text: str) -> Path:
        """Write a file of the reader's."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.substitute(text))
        return path

    def run(self, command: str, timeout: float = 60.0) -> tuple[int, str]:
        """Run a command to its end; returns its exit code (124: it took too long) and its output, as pages show it."""
        done = subprocess.run(
            [
                "timeout",
                f"{timeout}",
                "bash",
                "-c",
                f"{self._before()}{self.substitute(command)}\n{_SAVE.format(state=self._state)}",
            ],
            cwd=self.folder,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        self._last = done.returncode
        return done.returncode, done.stdout.decode(errors="replace").replace(str(self.folder), USER)

    def keep(self, command: str) -> BackgroundCommand:
        """Start a command that goes on."""
        log = self._state.with_name(f"kept-{len(self._background)}.log")
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["bash", "-c", f"{self._before()}exec env {self.substitute(command)}"],
                cwd=self.folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._background.append(BackgroundCommand(process, log, self.folder))
        return self._background[-1]

    def close(self) -> None:
        """End what is kept, last started first."""
        while self._background:
            self._background.pop().interrupt()

    def _before(self) -> str:
        restored = f'. "{self._state}.env"; cd "$(cat "{self._state}.cwd")"\n'
        known = self._state.with_suffix(".env").exists()
        return (restored if known else "") + (f"(exit {self._last})\n" if self._last else "")
