"""A terminal session: commands run one after the other in one folder, some in the background.

Changes of environment and working folder persist to the next command. Fixed ports are replaced by free ones
consistently, so that pages may name ports and tests may run in parallel; `ports` has the mapping. `stand_ins` maps
further texts of pages to their replacements.
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
"""The folder that pages show instead of the real one."""

_PORT = re.compile(r"(?P<before>127\.0\.0\.1:|--port |_PORT=|-s3\.port=)(?P<port>[1-9]\d{3,4})\b")
_SAVE = 'code=$?; export -p > "{state}.env"; pwd > "{state}.cwd"; exit $code'


class BackgroundCommand:
    """A command in the background, with its output."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, folder: Path) -> None:
        self._process = process
        self._log = log
        self._folder = folder

    def output(self) -> str:
        """Return the output so far, as pages show it."""
        return self._log.read_text(errors="replace").replace(str(self._folder), USER)

    def wait_for_lines(self, shown: tuple[str, ...], timeout: float = 90.0) -> list[str]:
        """Wait until the lines are printed; return those that are missing at the timeout."""
        deadline = time.monotonic() + timeout
        while lacking := pages.missing(shown, self.output()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                return lacking
            time.sleep(0.02)
        return []

    def interrupt(self, timeout: float = 60.0) -> int:
        """Send SIGINT and wait for the exit; return the exit code."""
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
        """The free port for each fixed one."""
        self._last = 0
        self._env = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "TERM": "dumb",
            "COLUMNS": "140",
            "PENSTOCK_IDLE": "120",
            "PENSTOCK_ACK_WAIT": "1.5",  # attempts of a killed platform are redelivered sooner
        }

    def substitute(self, text: str) -> str:
        """Replace fixed ports by free ones and apply the other replacements of pages."""
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
        """Write a file into the working folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.substitute(text))
        return path

    def run(self, command: str, timeout: float = 120.0) -> tuple[int, str]:
        """Run a command; return its exit code (124: timeout) and its output, as pages show it."""
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
        """Start a command in the background."""
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
        """Stop the background commands, last started first."""
        while self._background:
            self._background.pop().interrupt()

    def _before(self) -> str:
        restored = f'. "{self._state}.env"; cd "$(cat "{self._state}.cwd")"\n'
        known = self._state.with_suffix(".env").exists()
        return (restored if known else "") + (f"(exit {self._last})\n" if self._last else "")
